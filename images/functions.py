"""What was recorded of programs, and names of their functions that stay the same from build to build."""

import re
import subprocess
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


def compiler() -> str:
    """What rustc says of itself."""
    return subprocess.run(["rustc", "--version", "--verbose"], check=True, capture_output=True, text=True).stdout


def profile_for(program: str, rustc: str) -> Path:
    """Where it is written how often each piece of its code ran: another compiler has other names, and may not be able to read it."""
    return Path(__file__).with_name("profiles") / f"{program}-{rustc.split()[1]}.gz"


def symbols(files: list[str]) -> list[str]:
    """The names of the functions in object files or in a program."""
    listed = subprocess.run(["nm", "--defined-only", "--format=posix", *files], check=True, capture_output=True, text=True).stdout
    lines = (line.split() for line in listed.splitlines())
    return [line[0] for line in lines if len(line) == 4 and line[1] in "tTwW"]


def is_rust(symbol: str) -> bool:
    """Whether it is a name of mangling v0."""
    return symbol.startswith("_R")


def stable(symbol: str) -> str:
    """The symbol's name without what differs between builds; of few functions it is the same."""
    if not is_rust(symbol):
        return symbol
    return OPTIMIZED.sub("", REPEATED.sub("B_", CRATE.sub("C", symbol)))
