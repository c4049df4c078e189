"""Kinds of claims, the test of each, and the registry: which primitive becomes which kind.

    registry    primitive -> kind
    form        the interface of a kind: a `Form` and a `Rule`
    claim       one claim of a program
    statistic   what a test measures, and the verdict that follows

Products, tested with random vectors:

    freivalds   the test: C r = A (B r)
    product     which are claims; `contraction`, `dot_general`, `convolution`: as C = A B
    biased      `x @ w + b` before a cast; `sums`: what adding b leaves to a device
    chosen      each row with a matrix of its own: `gathered` (by an index), `ragged` (by groups)
    single      the cheap form in float32; `condensed`: what a key holds in float32
    nonfinite   rows that may overflow, or are NaN on every device
    exposure    what other rounding of B does to a row
    standalone  one contraction without a program

Values, tested element by element:

    rounding    just after a cast or quantisation; `chains`: which ones; `axes`: along which axes
                rows lie; `rows`: what glue does to them; `middles`: where a rounding ends;
                `clear`: its cheap form
    cut         what a layer passes on
    decision    comparisons and signs
    choice      `argmax`, `top_k`, `sort`; `order`: whether a choice fits a row
    pieces      `rem`, `atan2`, signs: the piece on which a function that jumps is evaluated
    trips       of a loop: how often it ran; `loop`: the interface, `conditions`: when it ends
    table       small values of parameters and constants (`check.tables`: which ones)
    slack       how far a value may be off; `origin`: as its glue has it; `extremes`: ends of types

Bits, compared exactly:

    lookup      rows of a table of parameters; `slices`: what an index stands for
"""
