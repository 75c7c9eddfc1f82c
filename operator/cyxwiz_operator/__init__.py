"""The operator of CyxWiz: it binds each TrainingJob to the best ComputeNode and follows it to its end."""
