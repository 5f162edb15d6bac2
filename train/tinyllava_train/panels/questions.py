"""Questions about a scene, in nine kinds, each with its one right answer.

A kind is a file-level list of askers; an asker takes the scene and a random stream and returns a
question, or None where the panel has nothing to ask about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from tinyllava_edge.prompt import Reading
from tinyllava_train.panels.instruments.boxes import Boxes
from tinyllava_train.panels.instruments.display import Display
from tinyllava_train.panels.instruments.gauge import TICKS, Gauge
from tinyllava_train.panels.instruments.hazards import HAZARDS
from tinyllava_train.panels.instruments.leds import Leds
from tinyllava_train.panels.instruments.pen import COLOURS
from tinyllava_train.panels.instruments.tanks import LEVELS, Tanks
from tinyllava_train.panels.scene import Scene
from tinyllava_train.panels.sensors import agreeing_case, unrelated_readings

UNKNOWN = "unknown"
"""The answer where the panel does not have what is asked about."""


@dataclass(frozen=True)
class PanelQuestion:
    """A question with its answer; ``choices`` are all possible answers where they are few."""

    kind: str
    text: str
    answer: str
    choices: tuple[str, ...] = ()
    readings: tuple[Reading, ...] = ()


Asker = Callable[[Scene, Random], PanelQuestion | None]

_YES_NO = ("yes", "no", UNKNOWN)
_LED_STATES = (*COLOURS, "off")


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def read_gauge(scene: Scene, rng: Random) -> PanelQuestion | None:
    """The gauge's value with its unit."""
    gauge = scene.find(Gauge)
    text = rng.choice(("What does the gauge read?", "What value does the gauge show?"))
    return None if gauge is None else PanelQuestion("read", text, gauge.reading)


def read_display(scene: Scene, rng: Random) -> PanelQuestion | None:
    """The number on the seven-segment display."""
    display = scene.find(Display)
    text = rng.choice(("What number is on the display?", "What does the display show?"))
    return None if display is None else PanelQuestion("read", text, str(display.number))


def read_tank(scene: Scene, rng: Random) -> PanelQuestion | None:
    """The level of one tank, in percent."""
    tanks = scene.find(Tanks)
    if tanks is None:
        return None
    letter = rng.choice(list(tanks.by_letter))
    text = rng.choice((f"How full is tank {letter}?", f"What is the level of tank {letter}?"))
    return PanelQuestion("read", text, f"{tanks.by_letter[letter]} %")


def read_absent(scene: Scene, rng: Random) -> PanelQuestion | None:
    """A reading that the panel cannot give; asked seldom, so that "unknown" stays an exception."""
    absent = {"gauge": Gauge, "display": Display}
    names = [name for name, kind in absent.items() if scene.find(kind) is None]
    if not names or rng.random() < 0.85:
        return None
    return PanelQuestion("read", f"What does the {rng.choice(names)} show?", UNKNOWN)


def is_open(scene: Scene, rng: Random) -> PanelQuestion | None:
    """Whether the valve or the door is open or closed; unknown where there is none."""
    name = rng.choice(("valve", "door"))
    passage = scene.passage(name)
    if passage is None and rng.random() < 0.7:
        return None
    state = rng.choice(("open", "closed"))
    text = rng.choice((f"Is the {name} {state}?", f"Can you see that the {name} is {state}?"))
    answer = UNKNOWN if passage is None else _yes(passage.open == (state == "open"))
    return PanelQuestion("yes_no", text, answer, _YES_NO)


def is_led(scene: Scene, rng: Random) -> PanelQuestion | None:
    """Whether one LED has a colour."""
    leds = scene.find(Leds)
    if leds is None:
        return None
    index = rng.randrange(len(leds.states))
    state = leds.states[index] if rng.random() < 0.5 else rng.choice(_LED_STATES)
    answer = _yes(leds.states[index] == state)
    return PanelQuestion("yes_no", f"Is LED {index + 1} {state}?", answer, _YES_NO)


def is_hazard(scene: Scene, rng: Random) -> PanelQuestion | None:
    """Whether there is smoke, or a leak."""
    likely = scene.hazard if scene.hazard != "nothing" and rng.random() < 0.6 else None
    hazard = likely or rng.choice(("smoke", "leak"))
    text = "Is there any smoke?" if hazard == "smoke" else "Is anything leaking?"
    return PanelQuestion("yes_no", text, _yes(scene.hazard == hazard), _YES_NO)


def is_above(scene: Scene, rng: Random) -> PanelQuestion | None:
    """Whether a tank is more than half full."""
    tanks = scene.find(Tanks)
    if tanks is None:
        return None
    letters = [letter for letter, level in tanks.by_letter.items() if level != 50]
    letter = rng.choice(letters)
    more = rng.random() < 0.5
    text = f"Is tank {letter} {'more' if more else 'less'} than half full?"
    answer = _yes((tanks.by_letter[letter] > 50) == more)
    return PanelQuestion("yes_no", text, answer, _YES_NO)


def led_colour(scene: Scene, rng: Random) -> PanelQuestion | None:
    """The colour of one LED, or off."""
    leds = scene.find(Leds)
    if leds is None:
        return None
    index = rng.randrange(len(leds.states))
    text = rng.choice(
        (f"What colour is LED {index + 1}?", f"Which colour does LED {index + 1} have?")
    )
    return PanelQuestion("colour", text, leds.states[index], _LED_STATES)


def liquid_colour(scene: Scene, _rng: Random) -> PanelQuestion | None:
    """The colour of the liquid in the tanks."""
    tanks = scene.find(Tanks)
    text = "What colour is the liquid in the tanks?"
    return None if tanks is None else PanelQuestion("colour", text, tanks.colour, tuple(COLOURS))


def count_boxes(scene: Scene, rng: Random) -> PanelQuestion | None:
    """How many boxes are on the shelf."""
    boxes = scene.find(Boxes)
    text = rng.choice(("How many boxes are there?", "How many boxes do you see?"))
    return None if boxes is None else PanelQuestion("count", text, str(boxes.count))


def count_leds(scene: Scene, rng: Random) -> PanelQuestion | None:
    """How many LEDs have a colour."""
    leds = scene.find(Leds)
    if leds is None:
        return None
    state = rng.choice(leds.states) if rng.random() < 0.7 else rng.choice(_LED_STATES)
    return PanelQuestion("count", f"How many LEDs are {state}?", str(leds.states.count(state)))


def highest_tank(scene: Scene, rng: Random) -> PanelQuestion | None:
    """The fullest or the emptiest tank."""
    tanks = scene.find(Tanks)
    if tanks is None:
        return None
    word, answer = rng.choice((("highest", tanks.fullest), ("lowest", tanks.emptiest)))
    text = rng.choice((f"Which tank has the {word} level?", f"Which tank is {word}?"))
    return PanelQuestion("highest", text, answer, tuple(tanks.by_letter))


def safe_gauge(scene: Scene, rng: Random) -> PanelQuestion | None:
    """Whether the gauge keeps to an upper or lower limit given in the question."""
    gauge = scene.find(Gauge)
    if gauge is None:
        return None
    ticks = _limit_near(gauge.tick, TICKS, rng)
    limit = ticks * gauge.step
    number = f"{limit:g} {gauge.unit}"
    if rng.random() < 0.5:
        text = f"The gauge must stay below {number}. Is it safe?"
        return PanelQuestion("safe", text, _yes(gauge.value < limit), _YES_NO)
    text = f"The gauge must stay above {number}. Is it safe?"
    return PanelQuestion("safe", text, _yes(gauge.value > limit), _YES_NO)


def safe_tank(scene: Scene, rng: Random) -> PanelQuestion | None:
    """Whether a tank keeps to a limit given in the question."""
    tanks = scene.find(Tanks)
    if tanks is None:
        return None
    letter = rng.choice(list(tanks.by_letter))
    level = tanks.by_letter[letter]
    place = LEVELS.index(level)
    apart = LEVELS[1] - LEVELS[0]
    limit = round(LEVELS[0] + apart * _limit_near(place, len(LEVELS) - 1, rng))
    if rng.random() < 0.5:
        text = f"Tank {letter} must stay below {limit} %. Is it safe?"
        return PanelQuestion("safe", text, _yes(level < limit), _YES_NO)
    text = f"Tank {letter} must stay above {limit} %. Is it safe?"
    return PanelQuestion("safe", text, _yes(level > limit), _YES_NO)


def _limit_near(tick: int, last: int, rng: Random) -> float:
    """A limit half-way between two ticks: on either side of ``tick`` with the same chance."""
    above = [t + 0.5 for t in range(tick, last)]
    below = [t + 0.5 for t in range(tick)]
    return rng.choice(rng.choice([side for side in (above, below) if side]))


def sensor_agrees(scene: Scene, rng: Random) -> PanelQuestion | None:
    """Whether the picture confirms one of the readings in the prompt."""
    case = agreeing_case(scene, rng)
    if case is None:
        return None
    text = rng.choice(
        (
            f"Does the picture confirm the {case.sensor} sensor?",
            f"Does the {case.sensor} sensor agree with the picture?",
        )
    )
    return PanelQuestion("sensor", text, _yes(case.agrees), _YES_NO, case.readings)


def state_of(scene: Scene, rng: Random) -> PanelQuestion | None:
    """Open or closed, as a word."""
    passages = [(name, scene.passage(name)) for name in ("valve", "door")]
    there = [(name, passage) for name, passage in passages if passage is not None]
    if not there:
        return None
    name, passage = rng.choice(there)
    text = rng.choice((f"Is the {name} open or closed?", f"What is the state of the {name}?"))
    return PanelQuestion("state", text, "open" if passage.open else "closed", ("open", "closed"))


def which_hazard(scene: Scene, rng: Random) -> PanelQuestion | None:
    """Smoke, leak or nothing."""
    text = rng.choice(("Do you see smoke, a leak or nothing?", "What is wrong here?"))
    return PanelQuestion("hazard", text, scene.hazard, HAZARDS)


ASKERS: dict[str, tuple[Asker, ...]] = {
    "read": (read_gauge, read_display, read_tank, read_absent),
    "yes_no": (is_open, is_led, is_hazard, is_above),
    "colour": (led_colour, led_colour, liquid_colour),
    "count": (count_boxes, count_leds),
    "highest": (highest_tank,),
    "safe": (safe_gauge, safe_tank),
    "sensor": (sensor_agrees,),
    "state": (state_of,),
    "hazard": (which_hazard,),
}
"""Kind -> the askers of that kind."""

_DISTRACTED = 0.2
"""How often a question that needs no sensor is asked with readings in the prompt all the same."""


def ask_kind(scene: Scene, kind: str, rng: Random) -> PanelQuestion | None:
    """One question of a kind, or None where the panel has nothing for it."""
    askers = list(ASKERS[kind])
    rng.shuffle(askers)
    for asker in askers:
        question = asker(scene, rng)
        if question is not None:
            return _with_distraction(question, rng)
    return None


def _with_distraction(question: PanelQuestion, rng: Random) -> PanelQuestion:
    if question.readings or rng.random() >= _DISTRACTED:
        return question
    readings = unrelated_readings(rng, rng.randint(1, 2), without=())
    return PanelQuestion(question.kind, question.text, question.answer, question.choices, readings)


def ask_many(scene: Scene, count: int, rng: Random) -> list[PanelQuestion]:
    """Different questions on one scene, the kinds taking turns."""
    found: dict[tuple[str, Sequence[Reading]], PanelQuestion] = {}
    kinds = list(ASKERS)
    for _ in range(6):
        rng.shuffle(kinds)
        for kind in kinds:
            question = ask_kind(scene, kind, rng)
            if question is not None and len(found) < count:
                found.setdefault((question.text, question.readings), question)
    return list(found.values())
