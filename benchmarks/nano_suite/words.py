"""Word lists of the suite, chosen by hand. Called by the modules that build questions."""

from __future__ import annotations


def _split(words: str) -> tuple[str, ...]:
    return tuple(words.split())


WORDS = _split(
    "go hi no ok ox up "
    "ant arm bay cab den elm fig gym hut ivy jar keg lid mop nut oak pub rye sky tub urn van wax yak zip "
    "barn bell cafe calm cave chef clay coal crab dawn deck dove dusk echo exit fern flag foam frog gate glue gold "
    "hall harp hawk inch iris jazz july kiln kite lamb lawn lime lion loft lynx mint moss navy noon oven palm pear "
    "pier pine plum pond quiz raft rain reef rice road rose ruby sage sail salt seal shop silk soap sofa swan taxi "
    "tent tide toys tuna vase vine wave wolf wool yard zinc zone "
    "amber apple attic baker beach berry bison bread brick cabin camel canoe cedar chalk cider clock cocoa coral "
    "daisy depot diner eagle farms ferry flour forge ghost grape guest honey hotel igloo jelly koala lemon lilac "
    "lodge mango maple metro motel ocean olive onion opera panda peach pearl piano plaza poppy quilt radio ranch "
    "robin salad sauna sheep spice steam sugar table tiger toast tulip villa wheat yacht zebra "
    "anchor bakery bamboo basket bridge butter candle canyon castle cherry coffee cotton dragon engine falcon garage "
    "garden ginger hammer harbor island jacket jungle kettle ladder lagoon laundry library lobster market meadow "
    "museum office orchard parade parking pepper pigeon pirate pocket pumpkin rabbit ribbon river rocket saddle "
    "salmon school shelter silver spring station studio summer sunset temple theater ticket timber tomato tower "
    "tractor turtle valley velvet village violin walnut welcome window winter zipper airport balloon battery bicycle "
    "blanket cabinet chicken compass cottage country diamond factory feather firefly gallery giraffe hallway harvest "
    "horizon kitchen lantern laptop leopard machine mailbox monitor morning mustard "
    "airplane aquarium backpack birthday broccoli calendar computer cucumber daffodil dinosaur elephant envelope "
    "festival headline hospital keyboard lavender magazine monument mountain notebook painting pharmacy platform "
    "sandwich sunshine terminal umbrella vacation workshop"
)
NAMES = _split(
    "Ada Amir Bea Carl Cleo Dana Dora Eli Emma Finn Gus Hana Ida Igor Jack Juno Kara Kofi Lars Lena Luca Maya Milo "
    "Nina Noor Omar Otto Pia Rosa Sana Theo Tom Uma Vera Wade Yara Zoe Bruno Clara Diego Elena Fiona Henry Irene "
    "Jonas Karim Linda Marta Oscar Paolo Ravi Sofia Wanda Yusuf Amelia Bianca Hector Imani Jasper Nadia Rupert Stella"
)
CITIES = _split("Lima Oslo Cairo Delhi Dover Genoa Kyoto Milan Paris Quito Rabat Turin Vienna Dublin Geneva Lisbon")
DISHES = _split(
    "Soup Salad Pasta Pizza Curry Steak Tacos Ramen Fries Burger Omelet Risotto Tea Coffee Juice Cocoa Milk Soda "
    "Bagel Muffin Waffle Cake Pie Sundae"
)
GOODS = _split("Nails Paint Rope Tape Bolts Glue Lamps Hooks Pipes Tiles Wire Saws Plugs Drills Gloves Brushes")
MONTHS = _split("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec")
DAYS = _split("Mon Tue Wed Thu Fri Sat Sun")
BUTTONS = (
    ("Save", "Cancel"),
    ("Yes", "No"),
    ("OK", "Close"),
    ("Retry", "Quit"),
    ("Allow", "Deny"),
    ("Send", "Back"),
    ("Delete", "Keep"),
    ("Update", "Later"),
)
DIALOGS = (
    ("Save file?", "notes.txt"),
    ("Low battery", "10% left"),
    ("New message", "from Hana"),
    ("Disk full", "Free 2 GB"),
    ("Delete photo?", "beach.png"),
    ("Update ready", "Version 7.2"),
    ("Wi-Fi lost", "Try again"),
    ("Sign out?", "User: omar"),
    ("File missing", "data.csv"),
    ("Print page?", "Copies: 3"),
    ("Call ended", "12 minutes"),
    ("Alarm", "Wake up"),
)
COMMANDS = (
    ("ls docs", "intro.md"),
    ("pwd", "/home/ida"),
    ("date", "Fri 09:41"),
    ("whoami", "kofi"),
    ("cd music", "no such folder"),
    ("git pull", "up to date"),
    ("make test", "9 passed"),
    ("cat note", "buy bread"),
    ("ping oslo", "12 ms"),
    ("node -v", "v22.4"),
    ("df -h", "81% used"),
    ("rm old.txt", "removed"),
)
# Lines for pages of two to four lines, at most twelve characters each.
LINES = (
    "Open daily",
    "Keep left",
    "No smoking",
    "Fresh eggs",
    "Mind the gap",
    "Wet paint",
    "Ring twice",
    "Pay here",
    "Quiet please",
    "Free entry",
    "Push to open",
    "Staff only",
    "Sold out",
    "Live music",
    "Last bus 9pm",
    "Lost a cat",
    "Call Rosa",
    "Room to let",
    "Ice cream",
    "Buy one",
    "Get one free",
    "Slow down",
    "School zone",
    "Two miles",
    "Happy hour",
    "Dinner at 6",
    "Bring a coat",
    "Feed the dog",
    "Water plants",
    "Meet at noon",
    "Good night",
    "Thank you",
    "Come again",
    "Next exit",
    "Stay warm",
    "Hot drinks",
    "Back soon",
    "Gone fishing",
    "Take a seat",
    "Book club",
    "Card only",
    "Use side door",
)
# Words that consist of two shorter words.
COMPOUNDS = (
    ("sun", "set"),
    ("rain", "bow"),
    ("foot", "ball"),
    ("pan", "cake"),
    ("snow", "man"),
    ("star", "fish"),
    ("air", "port"),
    ("book", "case"),
    ("cup", "cake"),
    ("door", "bell"),
    ("milk", "shake"),
    ("tea", "pot"),
    ("news", "paper"),
    ("tooth", "brush"),
    ("water", "fall"),
    ("key", "board"),
)
