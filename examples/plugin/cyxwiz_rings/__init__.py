"""An example of a plug-in: a model, `polynomial`, and data it is good at, `rings://`."""
