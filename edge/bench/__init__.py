"""`radbox bench`: seconds for each stage, tokens and images per second, memory and energy, with the real services.

    plan (what is read) -> trial (a box of its own) -> measure -> edge.bench_result -> page, plot, comparison

What the page needs of it lies below: `edge.bench_result`, `edge.bench_compare`, `edge.bench_kept`, `edge.bench_plot`.
"""
