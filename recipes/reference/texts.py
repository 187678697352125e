"""Texts for the synthetic part of the training set: digit strings and short everyday sentences.

Every text is a pure function of (seed, kind, index), so an interrupted synthesis can be resumed and the same command
makes the same corpus on every machine. A text exists in two forms: the spoken form given to the synthesiser (capitals,
commas, question marks) and the transcript (lower-case a-z, apostrophe, single spaces) that `normalise` derives from it.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "oh")
# "zero" and "oh" are one digit with two readings: together a little more frequent than any other digit.
_DIGIT_WEIGHTS = (0.7, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.6)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ONES = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = _words("zero ten twenty thirty forty fifty sixty seventy eighty ninety")
_ORDINALS = _words(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth"
)


def normalise(text: str) -> str:
    """Return the transcript of a spoken text: lower-case words of a-z and apostrophe, joined by single spaces."""
    words = re.sub(r"[^a-z']+", " ", text.lower()).split()
    return " ".join(word for word in (w.strip("'") for w in words) if word)


def number_words(number: int) -> str:
    """Spell a cardinal number of 0 to 999,999 in English words without hyphens or "and".

    Raises:
        ValueError: the number is outside that range.
    """
    if not 0 <= number < 1_000_000:
        raise ValueError(f"number_words spells 0 to 999999, found {number}")
    if number < 20:
        return _ONES[number]
    if number < 100:
        return _TENS[number // 10] + (f" {_ONES[number % 10]}" if number % 10 else "")
    unit, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    head, rest = divmod(number, unit)
    return f"{number_words(head)} {name}" + (f" {number_words(rest)}" if rest else "")


def digit_string(seed: int, index: int, max_digits: int) -> str:
    """Return the spoken form of digit string `index`: 1 to `max_digits` digit words, some with commas for pauses.

    Half of the strings have no pauses, a third are grouped by random commas, the others have a pause after every digit.

    Raises:
        ValueError: `max_digits` is not in 1 to 8.
    """
    if not 1 <= max_digits <= 8:
        raise ValueError(f"max_digits must be 1 to 8, found {max_digits}")
    rng = random.Random(f"digits:{seed}:{index}")
    words = rng.choices(DIGIT_WORDS, _DIGIT_WEIGHTS, k=rng.randint(1, max_digits))
    pause = rng.choices((0.0, 0.3, 1.0), (0.5, 0.33, 0.17))[0]
    text = "".join(word + ("," if rng.random() < pause else "") + " " for word in words[:-1]) + words[-1]
    return text + rng.choices(("", ".", "?"), (0.45, 0.5, 0.05))[0]


_SLOTS: Mapping[str, tuple[str, ...]] = {
    key: tuple(part.strip() for part in value.split("|"))
    for key, value in {
        "room": "kitchen|bedroom|living room|bathroom|hall|garage|office|cellar|attic|dining room|guest room|nursery",
        "device": "light|lamp|radio|heater|fan|television|speaker|music|oven|dishwasher|air conditioner|coffee machine",
        "opening": "window|door|blinds|curtains|garage door|front door|back door|gate|shutters",
        "person": "Anna|my mother|David|the doctor|your brother|Sarah|Peter|our neighbour|Michael|the teacher|my uncle|"
        "Laura|the driver|James|my sister|Emma|the manager|Robert|grandma|Julia|the plumber|Thomas|Maria|a friend",
        "place": "station|library|market|airport|hospital|museum|bakery|school|beach|park|hotel|post office|bridge|"
        "theatre|harbour|town hall|pharmacy|swimming pool|garden centre|restaurant|church|stadium|river|forest",
        "city": "London|Paris|Boston|Dublin|Berlin|Chicago|Rome|Denver|Sydney|Toronto|Madrid|Oxford|Vienna|Seattle",
        "food": "bread|cheese|apples|soup|rice|fish|chicken|pasta|tomatoes|salad|cake|potatoes|eggs|butter|pears|"
        "chocolate|pancakes|beans|carrots|mushrooms|honey|yoghurt|sandwiches|ice cream|oranges|strawberries",
        "drink": "tea|coffee|water|orange juice|milk|lemonade|hot chocolate|apple juice|beer|wine",
        "unit": "minutes|hours|days|weeks|months|years|seconds",
        "measure": "kilos of|bottles of|boxes of|pounds of|bags of|cups of|slices of|packets of",
        "day": "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday",
        "when": "today|tomorrow|tonight|yesterday|next week|last summer|this morning|in the evening|before lunch|"
        "after work|at the weekend|this afternoon|every day|once a month|right now|in the winter",
        "soon": "tomorrow|tonight|next week|this afternoon|after lunch|later|in the morning|at the weekend",
        "month": "January|February|March|April|May|June|July|August|September|October|November|December",
        "colour": "red|blue|green|yellow|white|black|brown|grey|purple|orange|pink|silver",
        "adjective": "old|new|small|large|heavy|cheap|broken|quiet|beautiful|strange|warm|wet|clean|empty|dark|soft|"
        "narrow|round|bright|simple|expensive|dirty|long|short|famous|useful|dangerous|friendly|tired",
        "thing": "book|car|table|ticket|letter|key|phone|camera|chair|jacket|umbrella|bicycle|picture|bag|clock|"
        "computer|hat|knife|map|newspaper|piano|plate|shirt|shoe|suitcase|box|ladder|mirror|blanket|guitar|bottle",
        "animal": "dog|cat|horse|bird|rabbit|sheep|fox|duck|mouse|cow|goat|bear|frog|squirrel|owl|snake|pig|hen",
        "did": "found|lost|bought|sold|cleaned|broke|carried|borrowed|painted|repaired|forgot|hid|moved|wanted|saw|"
        "brought|dropped|opened|packed|chose|returned|washed|noticed|recognised|threw away|gave back",
        "verb": "find|buy|sell|clean|carry|borrow|paint|repair|forget|hide|move|bring|open|pack|choose|return|wash|"
        "show|use|keep|check|change|measure|finish|share|watch|throw|join|judge|reach",
        "feeling": "happy|sad|hungry|thirsty|angry|surprised|proud|nervous|bored|ready|busy|late|cold|sick|lucky|sure",
        "weather": "rain|snow|be sunny|be cloudy|be foggy|be very hot|freeze|be windy|storm|get colder",
        "genre": "jazz|rock|classical music|the news|folk songs|a podcast|the next song|quiet music|my playlist",
        "plan": "go swimming|visit the museum|cook dinner|watch a film|stay at home|play tennis|take the train|"
        "go for a walk|learn French|fix the roof|write a letter|clean the house|buy a ticket|call the office",
        "phrase": "Thank you very much|Good morning|See you later|I don't know|How are you|It's nothing|You're welcome|"
        "That's all right|Please wait a moment|Excuse me|I'm sorry|Of course not|What a lovely day|Just a minute|"
        "Could you say that again|Never mind|Have a nice evening|That was quick|Well done|Don't worry about it|"
        "I can't hear you|Let's go home|Who is there|It doesn't matter|We'll see|They're on the way|Sounds good",
        "name": "Arthur|Rebecca|Daniel|Sophie|George|Hannah|Oliver|Victoria|Henry|Alice|Jack|Zoe|Felix|Quentin|Grace",
    }.items()
}

_TEMPLATES = tuple(
    line.strip()
    for line in """
    Turn on the {room} {device}|Turn off the {device} in the {room}|Switch the {device} off|Open the {opening}, please
    Close the {opening} in the {room}|Set the {room} temperature to {n2} degrees|Set the volume to {n2} percent
    Set a timer for {n2} {unit}|Wake me up at {time}|Remind me to {plan} at {time}|Play {genre} in the {room}
    Play {genre}
    Stop the music|Call {person} at {phone}|Dial {phone}|My number is {phone}|The code is {code}
    Enter {code} and press one
    Add {measure} {food} to the shopping list|Add {food} and {food} to my list|What is on my calendar {soon}?
    What time is it in {city}?|What's the weather like in {city}?|Will it {weather} {soon}?|It will {weather} {soon}
    How far is it to {city}?|Where is the nearest {place}?|How do I get to the {place}?|When does the {place} open?
    Who {did} the {adjective} {thing}?|Why did {person} {verb} the {thing}?|Have you seen my {colour} {thing}?
    Can you {verb} the {thing} for me?|Would you like some {food} or {drink}?|Do you want {drink} with your {food}?
    The train to {city} leaves at {time}|The bus arrives at {time}
    The flight to {city} takes {n1} hours and {n2} minutes
    We met on {day}, the {ordinal} of {month}|{person} was born on {month} {ordinal}, {year}|It happened in {year}
    The meeting is on {day} at {time}|Today is {day}, {month} the {ordinal}|The {place} was built in {year}
    The {thing} costs {price}|That's {price}, please|I paid {price} for the {colour} {thing}|The total is {price}
    {person} {did} the {thing} {when}|{person} {did} a {adjective} {thing} near the {place}|I {did} the {colour} {thing}
    The {adjective} {animal} ran behind the {thing}|The {animal} and the {animal} sat by the {place}
    A {colour} {animal} jumped over the {adjective} {thing}|There are {n2} {colour} chairs in the {room}
    There were {n4} people at the {place} {when}|We need {n2} {measure} {food}|Please bring {n1} {measure} {food}
    I would like a cup of {drink} and some {food}|{person} never eats {food} with {drink}|We had {food} for breakfast
    {person} is {feeling} {when}|I'm not {feeling}, I'm {feeling}|Are you {feeling}?
    {person} looks {feeling} and {feeling}
    Let's {plan} {soon}|I want to {plan} with {person}|{person} and I will {plan} {soon}|We couldn't {plan} {when}
    {phrase}|{phrase}, {name}|{phrase}. {phrase}|My name is {name} and I live in {city}|{name}, where are you?
    I've been waiting for {n2} {unit}|It takes {n2} {unit} to {verb} the {thing}|She's {n2} years old
    He weighs {n3} pounds
    Turn to page {n3}|Read chapter {n2} again|The answer is {n3}|{n2} plus {n2} is not {n3}|{n1} times {n2}|{n2} percent
    Room {n3} is on the {ordinal} floor|Flight {code} is now boarding at gate {n2}|Take the {ordinal} street on the left
    Cancel the alarm|Cancel my {time} appointment|Send a message to {person}|Tell {person} that I'm {feeling}
    If it's {feeling2}, {verb} the {thing} first|You should {verb} it before you {verb} it|Don't {verb} the {thing}
    I think the {thing} is under the {adjective} {thing}|The {thing} on the table is {colour}
    Is that {thing} {adjective}?
    {n3}|{n4}|{n6}|{time}|{day}, {month} the {ordinal}|{price}|Yes|No|Stop|Start|Pause|Continue|Louder|Cancel that
    """.replace("\n", "|").split("|")
    if line.strip()
)


def _time(rng: random.Random) -> str:
    hour, minute = rng.randint(1, 12), rng.randint(1, 59)
    spoken = number_words(hour)
    clock = f"{spoken} {number_words(minute) if minute > 9 else 'oh ' + number_words(minute)}"
    other = rng.choice((f"half past {spoken}", f"quarter to {spoken}", f"a quarter past {spoken}", f"{spoken} o'clock"))
    late = rng.choice(("noon", "midnight", f"{spoken} in the morning", f"{clock} in the evening"))
    return rng.choices((clock, other, late), (0.5, 0.35, 0.15))[0]


def _fill(slot: str, rng: random.Random) -> str:
    """Return one random filling of a template slot: a word of `_SLOTS` or a spelt number, time, price, code."""
    if slot[0] == "n" and slot[1:].isdigit():  # a number of at most so many decimal places
        return number_words(rng.randrange(10 ** rng.randint(1, int(slot[1:]))))
    if slot == "time":
        return _time(rng)
    if slot == "ordinal":
        return rng.choice((*_ORDINALS, *(f"twenty {word}" for word in _ORDINALS[:9]), "thirtieth", "thirty first"))
    if slot == "year":
        century, rest = rng.choice(("eighteen", "nineteen", "twenty")), rng.randint(1, 99)
        return f"{century} {'oh ' if rest < 10 else ''}{number_words(rest)}"
    if slot == "price":
        whole = number_words(rng.randint(2, 99) * rng.choice((1, 1, 1, 10)))
        cents = rng.choice(("", f" {number_words(rng.randint(10, 99))}", " and fifty cents"))
        return f"{whole} {rng.choice(('dollars', 'pounds', 'euros'))}{cents}"
    if slot in ("phone", "code"):
        words = rng.choices(DIGIT_WORDS, k=rng.randint(6, 8) if slot == "phone" else rng.randint(2, 5))
        return " ".join(words[:3]) + (", " if slot == "phone" else " ") + " ".join(words[3:])
    if slot == "feeling2":
        return rng.choice(("raining", "late", "too dark", "possible", "not working", "cold outside", "your turn"))
    return rng.choice(_SLOTS[slot])


class Vocabulary:
    """Word successions of human transcripts, recombined into new word strings by a random walk over word pairs."""

    def __init__(self, transcripts: Iterable[str]) -> None:
        """Collect the word pairs of transcripts; their order and repetition do not matter."""
        self._next: dict[str, list[str]] = {}
        for transcript in sorted(set(transcripts)):
            words = ["", *normalise(transcript).split(), ""]
            for word, following in pairwise(words):
                self._next.setdefault(word, []).append(following)

    def __bool__(self) -> bool:
        """Return whether there is any word."""
        return bool(self._next.get(""))

    @classmethod
    def read(cls, manifests: Iterable[Path]) -> Vocabulary:
        """Read the `text` of the train split (never dev) of speech manifests.

        Raises:
            ValueError: a line is not a JSON object with `text` and `split`.
        """
        texts: list[str] = []
        for manifest in manifests:
            for number, line in enumerate(manifest.read_text(encoding="utf-8").splitlines(), 1):
                try:
                    entry = json.loads(line)
                    if entry["split"] == "train":
                        texts.append(str(entry["text"]))
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(
                        f"{manifest}:{number}: expected a JSON object with text and split, found {line[:80]!r}; "
                        "give --vocabulary a manifest.jsonl in the format of shared/speech"
                    ) from error
        return cls(texts)

    def walk(self, rng: random.Random, low: int, high: int) -> str:
        """Return `low` to `high` words; adjacent pairs occur in a transcript, except at a new start."""
        length, words, word = rng.randint(low, high), list[str](), ""
        while len(words) < length:
            word = rng.choice(self._next[word])
            words += [word] if word else []
        return " ".join(words)


def sentence(seed: int, index: int, vocabulary: Vocabulary | None = None, *, recombined: float = 0.4) -> str:
    """Return the spoken form of sentence `index`, 1 to about 20 words.

    Without `vocabulary` all sentences come from the templates; with it the share `recombined` comes from its walks.
    """
    rng = random.Random(f"sentences:{seed}:{index}")
    if vocabulary and rng.random() < recombined:
        text = vocabulary.walk(rng, 3, 9)
        return re.sub(r"\bi\b", "I", text[0].upper() + text[1:]) + "."
    text = re.sub(r"{(\w+)}", lambda match: _fill(match[1], rng), rng.choice(_TEMPLATES)).strip(" ,")
    text = re.sub(r"\b([Aa]) (?=[aeio])", r"\1n ", text)  # "a old" -> "an old"
    return text[0].upper() + text[1:] + ("" if text[-1] in "?." else ".")
