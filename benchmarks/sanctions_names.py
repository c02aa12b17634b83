"""Generated names to judge the sanctions matching by: two stocks that share no name and no root.

The matching was tuned on the stock ``TUNING`` only; what is reported and asserted is measured on ``MEASURING``, with another
seed. Spellings come from published romanisation systems of Cyrillic (BGN/PCGN, ISO 9 without marks, French, German) and from
spellings of Arabic names as they are met in print, not from the tables of `agents.trading.names`. The look-alikes, the harmless
texts and the sentences around a name are the same for both: real companies, on which real lists had raised false alarms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from agents.trading.name_index import ListedName

_LETTERS = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"
_SYSTEMS = {
    "common": "a b v g d e e zh z i y k l m n o p r s t u f kh ts ch sh shch - y - e yu ya",
    "bgn": "a b v g d ye yo zh z i y k l m n o p r s t u f kh ts ch sh shch - y - e yu ya",
    "iso": "a b v g d e e z z i j k l m n o p r s t u f h c c s s - y - e u a",
    "french": "a b v g d e io j z i i k l m n o p r s t ou f kh ts tch ch chtch - y - e iou ia",
    "german": "a b w g d e jo sch s i j k l m n o p r s t u f ch z tsch sch schtsch - y - e ju ja",
}
_ROMANISED = {
    system: str.maketrans({letter: heard.strip("-") for letter, heard in zip(_LETTERS, latin.split(), strict=True)})
    for system, latin in _SYSTEMS.items()
}
_LEGAL = ("Ltd", "Limited", "LLC", "GmbH", "S.A.", "JSC", "PJSC", "OOO", "Co., Ltd.", "FZE", "SARL", "Inc.", "PLC")
_BUSINESS = (
    "Trading",
    "Shipping",
    "Energy",
    "Petroleum",
    "Logistics",
    "Industries",
    "Bank",
    "Investment",
    "Steel",
    "Electronics",
)
_UNLIKE_BUSINESS = (
    "Bakery",
    "Cinemas",
    "Florists",
    "Bicycles",
    "Toys",
    "Orchestra",
    "Opticians",
    "Vineyards",
    "Museum",
    "Pizza",
)
_LOOK_ALIKES = (
    "Charcoal Grill Company", "Coalition Brewing", "Delta Air Lines", "Apple Inc.", "Microsoft Corporation", "Visa",
    "Intel", "Nike", "Sony", "Bayer AG", "BASF SE", "Dow Inc.", "Merck & Co.", "Cisco Systems", "Deere & Company",
    "Lowe's", "Target Corporation", "CSX Corporation", "Valero Energy", "First Solar", "Tata Motors",
    "Ford Motor Company", "General Motors", "General Electric", "Bank of America", "Wells Fargo", "Morgan Stanley",
    "Goldman Sachs Group", "National Grid plc", "United Parcel Service", "Industrial Bank of Korea",
    "International Paper", "Southwest Airlines", "Union Pacific", "Marathon Petroleum", "Western Digital",
    "Steel Dynamics", "East West Bancorp", "Trade Desk", "Energy Transfer", "Global Payments", "Micron Technology",
    "Boeing", "Caterpillar", "Volkswagen", "Siemens", "SAP", "Infineon Technologies", "Continental AG",
    "Toyota Motor", "Samsung Electronics", "Taiwan Semiconductor Manufacturing", "Alibaba Group", "Tencent",
    "Petrobras", "Vale", "Cemex", "Banco Santander", "Infosys", "HDFC Bank", "Emirates NBD", "Iron Mountain",
    "Orion Energy Systems", "Apollo Global Management", "Phoenix Group", "Atlas Air", "Zenith National",
    "Air Products and Chemicals", "Occidental Petroleum", "Commercial Metals",
)  # fmt: skip
_HEADLINES = (
    "{} halts production after a fire at its main plant",
    "Shares of {} rise after quarterly results beat estimates",
    "Regulator opens inquiry into payments, names {} as a client",
    "Supplier said on Monday that {} had cancelled the contract",
    "Court orders {} to pay damages, analysts say",
)
_HARMLESS = (
    "A coalition of farmers buys charcoal and coal from local dealers",
    "Delta Air Lines and United Airlines cut flights as fuel prices rise",
    "The national bank left rates unchanged; the central bank of Sweden did too",
    "International shipping and trading companies expect a strong quarter",
    "New energy investment fund raises capital for industrial projects",
    "Apple, Microsoft And Nvidia Lead Technology Stocks Higher",
    "General Motors recalls trucks over a steel part, says safety agency",
    "Oil and gas exploration company reports record petroleum production",
)


@dataclass(frozen=True)
class Stock:
    """What names are made of."""

    seed: int
    given: tuple[str, ...]
    roots: tuple[str, ...]
    arabic: tuple[tuple[str, ...], ...]
    families: tuple[tuple[str, ...], ...]
    western: tuple[str, ...]
    surnames: tuple[str, ...]
    syllables: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """A question to the index: which listed name it means, if any."""

    kind: str
    text: str
    meant: str | None
    is_text: bool = False


@dataclass(frozen=True)
class Evaluation:
    """A list of names and the questions to ask it."""

    names: tuple[ListedName, ...]
    cases: tuple[Case, ...]


def _groups(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(group.split("/")) for group in text.split())


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


TUNING = Stock(
    seed=101,
    given=_words(
        "иван сергей юрий дмитрий алексей михаил павел борис вячеслав геннадий зоя ирина марина светлана яна андрей виктор "
        "григорий евгений константин николай олег пётр станислав тимофей фёдор людмила ольга наталья юлия"
    ),
    roots=_words(
        "петр сидор щербак кузнец медвед лебед соловь журавл шульг чайк жук бород горб дрозд ерш ильич каш лапш волк зайц "
        "баран козл орл гус синиц щук карас налим хомяк барсук ёлк дуб сосн вишн цыган чернышев"
    ),
    arabic=_groups(
        "Mohammed/Muhammad/Mohamed/Mohamad Ahmed/Ahmad/Achmed Hussein/Husayn/Hussain Yousef/Yusuf/Youssef Khaled/Khalid "
        "Abdul-Rahman/Abdurrahman/Abd-al-Rahman Omar/Umar Saeed/Said Mustafa/Moustafa Tariq/Tarek Abdullah/Abdallah/Abdalla "
        "Ibrahim/Ebrahim/Ibraheem Jamal/Djamal/Jamaal Othman/Uthman/Osman Suleiman/Sulayman/Soleiman Mahmoud/Mahmud "
        "Rashid/Rasheed Faisal/Faysal Hamza/Hamzah Abdul-Aziz/Abdelaziz/Abd-al-Aziz"
    ),
    families=_groups(
        "al-Rashidi/al-Rashidy/Rashidi al-Tikriti/al-Tikrity/el-Tikriti al-Masri/al-Masry/el-Masri Qasimi/Kasimi/Qassimi "
        "al-Jaburi/al-Jubouri/al-Jabouri Haddad/Hadad Mansour/Mansur Shahin/Shaheen/Chahine al-Dulaimi/al-Dulaymi "
        "Barzani/Barazani al-Zawahiri/al-Zawahri/el-Zawahiri al-Baghdadi/el-Baghdadi/al-Bagdadi al-Shami/al-Shamy/el-Chami "
        "Khoury/Khouri/Khuri al-Hashimi/al-Hashemi/el-Hashimi Nasrallah/Nasrala al-Otaibi/al-Utaybi Ghannam/Gannam "
        "al-Najjar/el-Naggar/al-Najar Sabbagh/Sabagh"
    ),
    western=_words(
        "José Carlos Manuel Jorge Luis Ana Carmen Jean Pierre Hans Günter Karl Marie Anders Björn Ricardo Alfonso Esteban "
        "Rocío Inés Thierry Benoît Jürgen Dieter Matthias Helga Øystein Torbjørn Søren Élise"
    ),
    surnames=_words(
        "Herrera Castillo Gutiérrez Márquez Ibáñez Dubois Lefèvre Schröder Krüger Sørensen Lindström Pacheco Quintero "
        "Villanueva Arboleda Zúñiga Cárdenas Peñaloza Rousseau Lemaître Böttcher Weiß Vogel Bjørnson Åkesson Figueroa"
    ),
    syllables=_words(
        "zar ro vel tri mo sha nek du pra lon gi bex tau vor ken sul kal ber umi fos tar ilo gran dez wyn osk hep rin pol mav"
    ),
)
MEASURING = Stock(
    seed=31337,
    given=_words(
        "александр анатолий аркадий вадим валерий василий владимир всеволод глеб денис захар игорь илья кирилл леонид матвей "
        "никита роман руслан семён эдуард ярослав анна вера галина екатерина елена лариса надежда тамара"
    ),
    roots=_words(
        "авдей бык воробь голуб ермол жаворонк зимород исай калин ласточ мельнич новгород остров поляк рыбак сокол тарас ульян "
        "фролов харитон цветк чумак шевел щегол эйхен юрьев яблок грачев дьяч казак"
    ),
    arabic=_groups(
        "Ali/Aly Hassan/Hasan Karim/Kareem Nasser/Nasir/Naser Bashir/Basheer Hamid/Hameed Abdul-Karim/Abdelkarim/Abd-al-Karim "
        "Abdul-Majid/Abdelmajid/Abd-al-Majeed Salim/Saleem/Selim Yahya/Yehia Zakaria/Zakariya/Zakarya Munir/Mounir/Muneer "
        "Walid/Waleed Ismail/Ismael/Isma'il Idris/Idrees/Driss Ayman/Aiman Bilal/Belal Fouad/Fuad Ghassan/Gassan Jaafar/Jafar"
    ),
    families=_groups(
        "al-Sudani/el-Sudani/al-Soudani al-Maliki/al-Malki/el-Maliki al-Kuwari/al-Kuwary Darwish/Darweesh/Derwish Fakhri "
        "al-Harbi/al-Harby Jaziri/Jazairi al-Qurashi/al-Kurashi/al-Qureshi Shukri/Shoukri/Shukry al-Tamimi/al-Tamimy/el-Tamimi "
        "Zubaydi/Zubaidi/Zoubeidi al-Yamani/al-Yemeni Wahbi/Wahby Najib/Najeeb/Naguib al-Obeidi/al-Ubaydi/al-Obaidi "
        "Murad/Mourad Bouazizi/Buazizi Mahfouz/Mahfuz Ramadan/Ramadhan Taha/Tahah"
    ),
    western=_words(
        "Álvaro Agustín Beatriz Cristóbal Dolores Enrique Fabián Gonzalo Lucía Raúl Sebastián François Gérard Hélène Jérôme "
        "Mathieu Wolfgang Jörg Käthe Lüder Ulrich Håkan Åse Gøran Snorri Filipe João Tiago Zdeněk Łukasz"
    ),
    surnames=_words(
        "Albornoz Benítez Cañizares Domínguez Echeverría Garrido Iñíguez Larrañaga Montoya Olivares Urrutia Beaumont "
        "Clément Garçon Moreau Thévenet Dörfler Fröhlich Hübner Möller Straßer Dahlström Grønberg Hjort Nygård "
        "Gonçalves Magalhães Novák"
    ),
    syllables=_words(
        "qui len ast fer mun dor pel xan yor bri cla stu hem gol nav wes jut lim pra opt ire das vik zem hol eru nyx tam fal"
    ),
)
_SHARE_OF_SHORT_NAMES = 0.1
_SUFFIXES = ("ов", "енко", "ский", "ин", "ук", "евич")
_INFIXES = ("", "ик", "ан", "ат", "ун", "ил", "ош", "ар", "ченк", "лыж", "мед", "гул", "саф", "пух", "виш", "рем", "бой", "нях")


def build_evaluation(stock: Stock, *, n_names: int, n_cases: int, seed: int | None = None) -> Evaluation:
    """Return a list of made-up names and, in equal parts, cases that mean one of them and cases that mean none.

    Parameters
    ----------
    stock : Stock
    n_names : int
        Length of the list; 30 percent Slavic, 20 Arabic, 15 Western names of people, 35 of companies.
    n_cases : int
    seed : int, optional
        That of the stock when None.
    """
    rng = np.random.default_rng(stock.seed if seed is None else seed)
    people = list(dict.fromkeys(_people(stock, rng, 2 * n_names)))
    companies = list(dict.fromkeys(_companies(stock, rng, n_names)))
    n_people = min(int(0.65 * n_names), len(people) // 2)
    n_companies = min(n_names - n_people, len(companies) // 2)
    listed, others = people[:n_people], people[n_people:]
    listed_companies, other_companies = companies[:n_companies], companies[n_companies:]
    names = tuple(
        ListedName(name=" ".join(_first_spelling(person)), entry=f"P{at}", is_person=True) for at, person in enumerate(listed)
    ) + tuple(
        ListedName(name=" ".join([*company, str(rng.choice(_LEGAL))]), entry=f"C{at}", is_person=False)
        for at, company in enumerate(listed_companies)
    )
    taken = {key for person in listed for key in _keys(person)}
    known_roots = {company[0] for company in listed_companies}
    cases: list[Case] = []
    while len(cases) < n_cases // 2:
        if rng.random() < 0.6:
            at = int(rng.integers(len(listed)))
            cases.append(_person_case(rng, listed[at], f"P{at}"))
        else:
            at = int(rng.integers(len(listed_companies)))
            cases.append(_company_case(rng, listed_companies[at], f"C{at}"))
    while len(cases) < n_cases:
        cases.append(_stranger(rng, others, taken, other_companies, listed_companies, known_roots))
    return Evaluation(names, tuple(cases))


Person = tuple[tuple[str, ...], ...]
"""A name in its parts, each in its spellings; the first is what the list has."""


def _people(stock: Stock, rng: np.random.Generator, n: int) -> Iterator[Person]:
    for _ in range(n):
        kind = rng.choice(3, p=(0.46, 0.31, 0.23))
        if kind == 0:
            given = str(rng.choice(stock.given))
            middle = str(rng.choice(stock.given)).rstrip("йаья") + "ович"
            family = str(rng.choice(stock.roots)) + str(rng.choice(_INFIXES)) + str(rng.choice(_SUFFIXES))
            yield tuple(_slavic(part) for part in (given, middle, family))
        elif kind == 1:
            picks = rng.choice(len(stock.arabic), size=3, replace=False)
            family_of = stock.families[int(rng.integers(len(stock.families)))]
            yield (*(stock.arabic[int(at)] for at in picks), family_of)
        else:
            first, second = rng.choice(stock.western, size=2, replace=False)
            family_names = rng.choice(stock.surnames, size=2, replace=False)
            yield tuple(_plainer(str(part)) for part in (first, second, *family_names))


def _slavic(part: str) -> tuple[str, ...]:
    return (*(part.translate(_ROMANISED[system]).capitalize() for system in _SYSTEMS), part.capitalize())


def _plainer(part: str) -> tuple[str, ...]:
    plain = part.translate(str.maketrans("éèêáàíóúñüöäøåçßîÉØÅ", "eeeaaiounuoaoacsiEOA"))
    german = part
    for mark, letters in {"ü": "ue", "ö": "oe", "ä": "ae", "ø": "oe", "ß": "ss"}.items():
        german = german.replace(mark, letters)
    return tuple(dict.fromkeys((part, plain, german)))


def _companies(stock: Stock, rng: np.random.Generator, n: int) -> Iterator[tuple[str, ...]]:
    for _ in range(n):
        if rng.random() < _SHARE_OF_SHORT_NAMES:
            yield ("".join(map(str, rng.choice(stock.syllables, size=2))).capitalize(),)
            continue
        coined = "".join(map(str, rng.choice(stock.syllables, size=int(rng.integers(3, 5))))).capitalize()
        yield (coined, *map(str, rng.choice(_BUSINESS, size=int(rng.integers(1, 3)), replace=False)))


def _first_spelling(person: Person) -> list[str]:
    return [spellings[0] for spellings in person]


def _keys(person: Person) -> tuple[frozenset[str], frozenset[str]]:
    """Return all words of a name, and the first and the last: who shares either is not somebody else."""
    words = _first_spelling(person)
    return frozenset(words), frozenset((words[0], words[-1]))


def _typo(rng: np.random.Generator, words: list[str]) -> list[str]:
    long = [at for at, word in enumerate(words) if len(word) >= 5]
    if not long:
        return words
    at = int(rng.choice(long))
    word = words[at]
    place = int(rng.integers(1, len(word) - 1))
    letter = str(rng.choice(list("abdeiklmnoprstu")))
    kind = int(rng.integers(4))
    if kind == 0:
        word = word[:place] + word[place + 1 :]
    elif kind == 1:
        word = word[:place] + letter + word[place:]
    elif kind == 2:
        word = word[:place] + letter + word[place + 1 :]
    else:
        word = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    return [*words[:at], word, *words[at + 1 :]]


def _person_case(rng: np.random.Generator, person: Person, entry: str) -> Case:
    plain = _first_spelling(person)
    # One hand writes a whole name, in one system.
    depth = int(rng.integers(1, len(_SYSTEMS) + 1))
    spelled = [spellings[min(depth, len(spellings) - 1)] for spellings in person]
    kinds = {
        "exact": " ".join(plain),
        "case": " ".join(plain).upper(),
        "transliterated": " ".join(spelled),
        "swapped": f"{plain[-1]}, {' '.join(plain[:-1])}",
        "middle missing": f"{plain[0]} {plain[-1]}",
        "typo": " ".join(_typo(rng, plain)),
        "transliterated, swapped": f"{spelled[-1]} {' '.join(spelled[:-1])}",
        "transliterated, middle missing": f"{spelled[0]} {spelled[-1]}",
        "text": str(rng.choice(_HEADLINES)).format(" ".join(plain)),
        "text, middle missing": str(rng.choice(_HEADLINES)).format(f"{plain[0]} {plain[-1]}"),
        "text, transliterated": str(rng.choice(_HEADLINES)).format(" ".join(spelled)),
    }
    kind = str(rng.choice(list(kinds)))
    return Case(f"person: {kind}", kinds[kind], entry, kind.startswith("text"))


def _company_case(rng: np.random.Generator, company: tuple[str, ...], entry: str) -> Case:
    words, legal = list(company), str(rng.choice(_LEGAL))
    # One letter makes another name of a short one, which is why those are only found as they are spelled.
    mistyped = [*_typo(rng, words[:1]), *words[1:]] if len(words) > 1 else words
    kinds = {
        "other legal form": f"{' '.join(words)} {legal}",
        "legal form in front": f"{legal} {' '.join(words)}",
        "no legal form": " ".join(words).upper(),
        "swapped": " ".join([*words[1:], words[0]]),
        "typo": " ".join(mistyped),
        "hyphens": f"«{'-'.join(words)}» {legal}",
        "text": str(rng.choice(_HEADLINES)).format(f"{' '.join(words)} {legal}"),
    }
    kind = str(rng.choice(list(kinds)))
    return Case(f"company: {kind}", kinds[kind], entry, kind.startswith("text"))


def _stranger(
    rng: np.random.Generator,
    others: list[Person],
    taken: set[frozenset[str]],
    other_companies: list[tuple[str, ...]],
    listed_companies: list[tuple[str, ...]],
    known_roots: set[str],
) -> Case:
    kind = int(rng.integers(7))
    if kind < 2:
        while True:
            person = others[int(rng.integers(len(others)))]
            words = _first_spelling(person)
            if taken.isdisjoint(_keys(person)):
                break
        if kind == 0:
            return Case("other person", " ".join(words), None)
        return Case("other person in text", str(rng.choice(_HEADLINES)).format(" ".join(words)), None, True)
    if kind == 2:
        while (company := other_companies[int(rng.integers(len(other_companies)))])[0] in known_roots:
            pass
        return Case("other company", f"{' '.join(company)} {rng.choice(_LEGAL)}", None)
    if kind in (3, 4):
        company = listed_companies[int(rng.integers(len(listed_companies)))]
        namesake = f"{company[0]} {rng.choice(_UNLIKE_BUSINESS)} {rng.choice(_LEGAL)}"
        if kind == 3:
            return Case("namesake company", namesake, None)
        return Case("namesake company in text", str(rng.choice(_HEADLINES)).format(namesake), None, True)
    if kind == 5:
        return Case("look-alike", str(rng.choice(_LOOK_ALIKES)), None)
    return Case("harmless text", str(rng.choice(_HARMLESS)), None, True)
