"""What stands where in the tables that compiled loops are given."""

from __future__ import annotations

COLUMNS = 32  # of a product in one piece of work
PARTS = 7  # matrices of a layer, in this order
QUERY, KEY, VALUE, OUTPUT, GATE, UP, DOWN = range(PARTS)
ADDRESS, KIND, SCALES, BIAS, OUT, IN = range(6)  # of a matrix; its scales' and bias' offsets in `values`, or -1
QUERY_GAIN, KEY_GAIN = 4, 5  # of a layer's six offsets in `values`; before them the two norms' gains and biases
HIDDEN, HEADS, KV_HEADS, SIZE, PADDED, WIDTH, LAYERS, SLOTS, CAPACITY, CENTRED, ACTIVATION = range(11)
SWIGLU, GELU_TANH, GELU = range(3)
EPSILON = 0  # of the norms: the one number there is
LISTS = 5  # of work in a layer, in this order
JOINING, MIXING, MIXED, WIDENING, NARROWING = range(LISTS)
SPINS = 100  # looks at a counter before the core is offered to others
