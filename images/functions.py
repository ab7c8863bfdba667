"""Names of a program's functions that stay the same from build to build."""

import re
from pathlib import Path

# One name a line: what a sidecar runs while it starts, serves and idles, as `images/record` saw it.
FIRST = Path(__file__).with_name("first")

# Ends the name of the part of a function that is set aside as rarely run.
COLD = ".cold"

# What differs between builds of the same source in a symbol's name (mangling v0): hashes of crates, and with their lengths where repeated parts are;
# and numbers that the optimizer adds.
CRATE = re.compile(r"Cs[0-9A-Za-z]+_")
REPEATED = re.compile(r"B[0-9A-Za-z]*_")
OPTIMIZED = re.compile(rf"(\.llvm)?\.[0-9]+(?={re.escape(COLD)}$|$)")


def stable(symbol: str) -> str:
    """The symbol's name without what differs between builds; of few functions it is the same."""
    if not symbol.startswith("_R"):
        return symbol
    return OPTIMIZED.sub("", REPEATED.sub("B_", CRATE.sub("C", symbol)))
