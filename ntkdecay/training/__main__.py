"""`python -m ntkdecay.training STORE` prints the runs that a store holds, and which are unfinished."""

import argparse
import sys

from ntkdecay.training._load import listing

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m ntkdecay.training", description=__doc__)
    parser.add_argument("store", help="the folder given to `sweep` or `train` as `store`")
    try:
        print(listing(parser.parse_args().store))
    except ValueError as error:
        sys.exit(str(error))
