"""Writes awkward.json beside this file: 500 strings that tokenizers get wrong. Seeded: it makes the same again."""

from __future__ import annotations

import json
import random
from pathlib import Path

COUNT = 500
SEED = 20_000

WHOLE = [
    "",
    " ",
    "\n",
    "\t",
    "\0",
    "\r\n",
    "\u2581",
    "\u2585",
    "\ue000",
    "\ue000A\ue000B\u2581",
    " leading",
    "trailing ",
    " " * 200,
    "\n" * 50,
    "\t" * 30 + "x",
    "a" * 1000,
    "ab" * 300,
    "</s>",
    "<s>",
    "<unk>",
    "<pad>",
    "<0x0A>",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "<|spare_0|><|spare_15|>",
    "\ufeffbyte order mark",
    "e\u0301 and \u00e9, \u1112\u1161\u11ab and \ud55c",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466\U0001f3f4\U000e0067\U000e0062\U000e007f",
    "吾輩は猫である。名前はまだ無い。",
    "مَرْحَبًا بِالعَالَمِ",
    "שָׁלוֹם עוֹלָם",
    "नमस्ते दुनिया",
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞a̴̵̞l̨̥g̲o̮",
    "\U0010ffff\uffff\ufffe\ufffd",
    "\u00a0\u2003\u3000\u200b\u200e\u202e",
    "\u0085\u2028\u2029\x0b\x0c\x1c",
    "1234567890 3.14159 -2e-10 0x1F 1,000,000",
    "def f(x):\r\n\treturn x  # done\r\n",
    "    if a:\n        b = c\n\n\n",
]
ATOMS = [
    *"abcxyzABC0123456789",
    *" \t\n\r\0\x01\x07\x1b\x7f",
    *"()[]{}<>|/\\'\"`~!@#$%^&*_-+=.,:;?",
    *"\u2581\u2585\ue000\ue001\ufeff\ufffd\u200b\u200d\u00a0\u2028",
    *"éßñøžŁ\u0301\u0327\u20dd",
    *"日本語の猫は한국어中文ไทยहिन्दी",
    *"العربيةעברית",
    *"\U0001f600\U0001f469\U0001f3fd\U0001f1e9\U0001f1ea\u2764\ufe0f\U00010348\U0002070e",
    "  ",
    "    ",
    " " * 17,
    "\r\n",
    "\n\n",
    "the ",
    " and",
    "self.",
    "import ",
    "ing",
    "aaaa",
    "<s>",
    "</s>",
    "<unk>",
    "<pad>",
    "<0x41>",
    "<|im_start|>",
    "<|im_end|>",
    "<|im_end",
    "\ue000A",
    "\ue000B",
]


def awkward_strings(seed: int = SEED, count: int = COUNT) -> list[str]:
    """`count` distinct strings: the fixed ones, then mixtures; never a lone surrogate."""
    generator = random.Random(seed)
    found = dict.fromkeys(WHOLE)
    while len(found) < count:
        # A few atoms repeated make runs and overlapping merges, many make mixtures.
        atoms = generator.sample(ATOMS, generator.choice((2, 3, 8, len(ATOMS))))
        length = generator.choice((3, 10, 40, 200))
        found["".join(generator.choices(atoms, k=length))] = None
    return list(found)


if __name__ == "__main__":
    path = Path(__file__).with_name("awkward.json")
    path.write_text(json.dumps(awkward_strings(), indent=0) + "\n", encoding="ascii", newline="\n")
