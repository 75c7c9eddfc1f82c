"""The operator where no agents are: it waits for years for a job to be taken, and else is the one that is shipped.

Otherwise each job would be given up and bound again 15 s after it was bound, in the midst of what is measured, and be
counted twice.
"""

from __future__ import annotations

import importlib
import sys

from cyxwiz_operator.__main__ import main

if __name__ == "__main__":
    importlib.import_module("cyxwiz_operator.lifecycle.review").CLAIM_WITHIN_S = 1e9
    sys.exit(main())
