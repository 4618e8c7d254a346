"""Item tokenizers: vectors in, codes out. The contract is in base.py; one file per family."""
