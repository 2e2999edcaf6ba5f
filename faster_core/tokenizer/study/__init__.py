"""Fitting every tokenizer on every data set, and comparing them in one run."""
