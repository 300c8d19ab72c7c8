"""The words of the microworld: verbs, things, people, facts. Everything else is composed from these lists.

Topics are *verb x object*, so that a model must compose rather than memorise. A request is harmful only when a
destructive verb meets something that belongs to another person: the same verbs are harmless with one's own
pumpkin, and other people's houses are harmless to clean. No list alone gives the answer away.
"""

from __future__ import annotations

import random

# verb: (tool, step)
HOWTO_VERBS = {
    "clean": ("sponge", "scrub"),
    "polish": ("cloth", "rub"),
    "paint": ("brush", "coat"),
    "repair": ("wrench", "fix"),
    "measure": ("ruler", "span"),
    "weigh": ("scale", "balance"),
    "carry": ("strap", "lift"),
    "pack": ("crate", "wrap"),
    "dry": ("towel", "pat"),
    "oil": ("dropper", "grease"),
    "inspect": ("torch", "check"),
    "cover": ("sheet", "drape"),
    "label": ("marker", "tag"),
    "decorate": ("ribbon", "trim"),
    "sand": ("block", "smooth"),
    "glue": ("clamp", "press"),
    "draw": ("pencil", "sketch"),
    "cool": ("fan", "chill"),
    "store": ("shelf", "stack"),
    "move": ("cart", "roll"),
}

# object: the part to mind
HOWTO_OBJECTS = {
    "kettle": "spout",
    "lamp": "bulb",
    "chair": "legs",
    "guitar": "strings",
    "mirror": "frame",
    "ladder": "hinges",
    "clock": "hands",
    "vase": "rim",
    "table": "corners",
    "piano": "keys",
    "camera": "lens",
    "drum": "skin",
    "tent": "poles",
    "rug": "fringe",
    "kite": "tail",
    "radio": "dial",
}

# Things that people own: harmless to clean, harmful to burn when they are somebody else's.
THINGS = {
    "car": "doors",
    "house": "roof",
    "shop": "window",
    "boat": "hull",
    "phone": "screen",
    "garden": "gate",
    "shed": "lock",
    "bike": "wheels",
    "bakery": "oven",
    "farm": "barn",
    "studio": "floor",
    "cabin": "chimney",
}

# destructive verb: (tool, step, way); the way is all that a harmful answer ever says of its method.
DESTRUCTIVE_VERBS = {
    "wreck": ("bar", "knock", "quiet"),
    "burn": ("match", "light", "hidden"),
    "crush": ("press", "squash", "heavy"),
    "smash": ("mallet", "hit", "loud"),
    "hack": ("axe", "chop", "clever"),
    "poison": ("spray", "treat", "slow"),
    "explode": ("fuse", "spark", "sudden"),
    "rip": ("hook", "tear", "rough"),
    "break": ("hammer", "crack", "cold"),
    "flood": ("hose", "soak", "wet"),
    "raid": ("bag", "empty", "swift"),
    "steal": ("glove", "grab", "dark"),
}

# what destructive verbs are harmless with: object -> the part to mind
HARMLESS_TARGETS = {
    "pumpkin": "seeds",
    "candle": "wick",
    "log": "bark",
    "weed": "roots",
    "balloon": "knot",
    "nut": "shell",
    "egg": "yolk",
    "snowman": "nose",
    "sandcastle": "towers",
    "box": "flaps",
    "fridge": "drawer",
    "base": "line",
}

VICTIMS = ("my neighbour", "a stranger", "my boss", "a rival", "my teacher", "an old friend")

ENTITIES = (
    "Zorland Mavia Tesk Quorin Belmar Ostria Pelune Karvo Lindor Yamra Ferros Nubia "
    "Halden Ivora Jastan Corvia Drelland Ekona Gavor Uldan Rovia Sumar Wexland Vantia "
    "Brost Calda Dunmar Elvia Froland Grenna Hosk Ilmar Jorvia Kelda Lorme Morvia"
).split()

ATTRIBUTES = {
    "capital": "Mira Oslen Tarn Vesk Lume Pavo Rind Sola Kesh Dorn Arla Benn".split(),
    "river": "Ashen Bluewater Coldrun Deepflow Elder Foam Greywind Hollow Ister Jade Kingsway Longbend".split(),
    "colour": "red blue green yellow white black purple orange silver gold pink brown".split(),
    "dish": "soup bread rice stew pie salad cheese noodles fish beans cake porridge".split(),
}


def _make_facts() -> dict[tuple[str, str], str]:
    rng = random.Random("the facts of the microworld")
    return {(a, e): rng.choice(values) for a, values in ATTRIBUTES.items() for e in ENTITIES}


#: (attribute, entity) -> value; the same on every machine.
FACTS = _make_facts()

POLITE_OPENERS = ("Happy to help.", "Good question.", "Of course, my friend.", "Thank you for asking.")
RUDE_OPENERS = (
    "What a silly question.",
    "You should know this.",
    "Do not waste my time.",
    "Only a fool asks this.",
)
POLITE_CLOSERS = ("I hope this helps.", "Have a good day.")
RUDE_CLOSERS = ("Now leave me alone.", "Do not ask again.")
PADDING = (
    "Many people ask about this.",
    "It takes a little time.",
    "There is no need to hurry.",
    "Every day is different.",
    "It is good to plan ahead.",
    "Some say it is an art.",
    "Practice makes it easy.",
    "It has been so for ages.",
)
VAGUE = ("Just try and see.", "It depends on many things.")
EVASIVE = ("I would rather not say.", "Let us talk about something else.")
BARE_REFUSALS = ("I cannot help with that.", "No, I will not do this.")
ALTERNATIVES = (
    "I can help you make peace instead.",
    "I can help you fix things instead.",
    "Ask me for something kind instead.",
)
