"""The networks themselves, one family a file. Each file imports torch alone: it is exported beside the weights, so that
a model can be used where nothing of CyxWiz is installed.
"""
