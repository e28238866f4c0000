"""Three questions to a trace: `cr3 trace PROGRAM --events access --out FILE.parquet`, then this with FILE.parquet."""

import sys
from collections import Counter

import polars as pl

if len(sys.argv) != 2:
    sys.exit(__doc__)
trace = pl.scan_parquet(sys.argv[1]).filter(pl.col("event") == "access").sort("seq")
pages = trace.select("cycle", "kind", page=pl.col("va") // 4096).collect()
writes = (pages["kind"] == "write").sum()
print(f"{len(pages):,} accesses to {pages['page'].n_unique()} pages, {writes:,} of them writes")

window = (pl.col("cycle").max() + 1) // 10
curve = pages.group_by(pl.col("cycle") // window).agg(pl.col("page").n_unique()).sort("cycle")
print("working set in each tenth of the time:", *curve["page"].head(10))

hot = pages["page"].value_counts(sort=True).head(3)
print("hottest pages:", *(f"{page << 12:#x} ({count:,})" for page, count in hot.iter_rows()))

stack: list[int] = []  # pages, the last used first: as deep as a page is found, so many others were used since
depths: Counter[int] = Counter()
for page in pages.filter(pl.col("page") != pl.col("page").shift(1, fill_value=0))["page"]:
    depth = stack.index(page) if page in stack else None
    stack.insert(0, page if depth is None else stack.pop(depth))
    depths[len(pages) if depth is None else depth] += 1
missed = {size: sum(count for depth, count in depths.items() if depth >= size) for size in (4, 16, 64, 128, 256)}
print("an LRU TLB of so many entries would miss:", *(f"{size}: {count:,}" for size, count in missed.items()))
