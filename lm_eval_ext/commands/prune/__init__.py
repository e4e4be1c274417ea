"""The ``prune`` commands: score heads, sweep criteria, analyse, export."""
