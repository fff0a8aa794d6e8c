"""Many small cases at once, each named when it fails."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any


async def all_hold(cases: Mapping[str, Coroutine[Any, Any, None]]) -> None:
    """Run the cases concurrently. Fail with the names of those that failed and the first few errors."""
    results = await asyncio.gather(*cases.values(), return_exceptions=True)
    failed = {name: result for name, result in zip(cases, results, strict=True) if result is not None}
    if failed:
        shown = "\n".join(f"  {name}: {type(error).__name__}: {error}" for name, error in list(failed.items())[:4])
        first = next(iter(failed.values()))
        raise AssertionError(f"{len(failed)} of {len(cases)} cases failed: {[*failed]}\n{shown}") from first
