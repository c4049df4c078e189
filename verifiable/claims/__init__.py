"""Kinds of claims, the test of each, and the registry: which primitive becomes which kind.

    registry    primitive -> kind
    form        the interface of a kind: a `Form` and a `Rule`
    claim       one claim of a program
    statistic   what a test measures, and the verdict that follows
    contraction a product as three linear maps, C = A B

Products, tested with random vectors, in `products`:

    freivalds   the test: C r = A (B r)
    product     which are claims; `dot_general`, `convolution`: as contractions
    biased      `x @ w + b` before a cast; `bias_slack`: what adding b leaves to a device
    chosen      each row with a matrix of its own: `gathered` (by an index), `ragged` (by groups)
    float32_test  the cheap form; `condensed`: what a key holds in float32
    nonfinite   rows that may overflow, or are NaN on every device
    far_norms   norms of the columns and rows of B
    exposure    what other rounding of B does to a row
    slices      whole slices of an array that are picked by an index
    standalone  one contraction without a program

Values, tested element by element, in `roundings`:

    rounding    just after a cast or quantisation; `chains`: which ones; `axes`: along which axes
                rows lie; `row_error`: what glue does to them; `steps`, `midpoints`: where one ends;
                `cheap_test`: its cheap form

In `decisions`:

    decision    comparisons and signs
    choice      `argmax`, `top_k`, `sort`; `choice_pairs`: whether one fits a row
    pieces      `rem`, `atan2`, signs: the piece on which a function that jumps is evaluated
    trips       of a loop: how often it ran; `conditions`: when it ends

Other kinds, and what several share:

    cut         what a layer passes on
    table       small values of parameters and constants (`analysis.tables`: which ones)
    lookup      rows of a table of parameters, compared bit by bit
    loop        the interface of a claim that is a whole loop
    slack       how far a value may be off; `origin`: as its glue has it; `extremes`: ends of types
    selected_rows  claims of some rows, tested by themselves
"""
