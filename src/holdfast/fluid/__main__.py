"""`python -m holdfast.fluid SCRIPT [ARGS]` runs a program that was written for `paddle.fluid`."""

import sys

from holdfast.fluid.runner import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
