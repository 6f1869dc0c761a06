"""Captions for scenes, and which sticker a phrase means."""
import collections
import re


STYLE_WORDS = {
    'fluent3d': ['3d', '3d render', '3d icon', '3d style', 'glossy 3d', '3d model', '3d emoji', '3d rendering'],
    'noto': ['flat', 'flat illustration', 'flat icon', 'cartoon', '2d style', '2d', 'flat design',
             'flat cartoon', 'vector art', 'emoji', 'cartoon style']}
MOTION_WORDS = {
    'bounce': ['bouncing', 'bounces', 'bouncing up and down', 'bounce'],
    'spin': ['spinning', 'spins', 'rotating', 'turning around', 'rotates', 'spin'],
    'swing': ['swinging', 'swings', 'swinging like a pendulum', 'swing'],
    'slide in': ['sliding in', 'slides in', 'slides in from the left', 'entering', 'slide in'],
    'slide out': ['sliding out', 'slides out', 'leaving', 'slides away', 'slide out'],
    'zoom in': ['zooming in', 'zoom in', 'zooming', 'coming closer'],
    'zoom out': ['zooming out', 'zoom out', 'moving away'],
    'pulse': ['pulsing', 'pulses', 'pulsating', 'beating', 'pulse'],
    'shake': ['shaking', 'shakes', 'trembling', 'vibrating', 'shake'],
    'wave': ['waving', 'waves', 'rippling', 'wavy', 'wave'],
    'grow': ['growing', 'grows', 'getting bigger', 'grow'],
    'shrink': ['shrinking', 'shrinks', 'getting smaller', 'shrink'],
    'fall': ['falling', 'falls', 'falling down', 'dropping', 'fall'],
    'rise': ['rising', 'rises', 'flying up', 'lifting off', 'rise'],
    'change colours': ['changing colours', 'changing colors', 'colour cycling', 'color cycling',
                       'cycling through colours', 'rainbow colours'],
    'rock': ['rocking', 'rocks', 'rocking from side to side', 'tilting', 'rock'],
    'orbit': ['orbiting', 'circling', 'moving in a circle', 'orbits', 'orbit'],
    'blink': ['blinking', 'blinks', 'flashing', 'flickering', 'blink'],
    'float': ['floating', 'floats', 'hovering', 'drifting', 'float'],
    'hop': ['hopping', 'hops', 'jumping', 'jumps', 'hop'],
    'flip': ['flipping', 'flips', 'turning over', 'flip'],
    'wobble': ['wobbling', 'wobbles', 'jelly', 'jiggling', 'wobble'],
    'move across': ['moving across', 'passing by', 'driving by', 'flying by', 'running across', 'crossing']}
LOOPS = [', loop', ', looping', ', seamless loop', ' in a loop', ' forever']
LEADS = ['', '', '', '', '', '', '', '', 'a ', 'a ', 'a ', 'an ', 'the ', 'one ', 'an image of ', 'a picture of ', 'a drawing of ',
         'an illustration of ', 'a photo of ', 'an icon of ', 'draw ', 'a single ', 'my ', 'a slice of ', 'a cup of ', 'a piece of ', 'a bowl of ',
         'a bunch of ', 'a pair of ', 'two ', 'some ', 'sticker of ', 'emoji of ', 'show me ', 'a little ']
FILLERS = ['cute', 'beautiful', 'simple', 'small', 'big', 'nice', 'detailed', 'shiny', 'funny', 'clean']
TAILS = ['highly detailed', 'high quality', 'centered', 'minimal', 'sharp', '4k', 'isolated', 'studio light',
         'digital art', 'beautiful', 'cute']
# Words of no meaning to the picture, before and behind.
CHAT = ('i you we want need would like could can please to see show me give make create generate draw paint render '
        'design build now just only really very one some any this that these with without it is are be for from and '
        'or in at as by my your our nice good great lovely pretty little tiny huge large new old plain simple single '
        'whole front view side close up picture image photo icon sticker emoji drawing illustration art artwork '
        'graphic clipart logo scene object thing symbol before behind under over near looking facing shown standing '
        'what does a an the').split()
# What stands around a thing and says nothing that the data knows.
AROUND = ('watercolor painting of|oil painting of|pencil drawing of|photograph of|photo of|portrait of|realistic|cinematic|fantasy|magical|vintage|'
          'futuristic|modern|fluffy|wooden|golden|cozy|wild|tiny|giant|old|young|happy|sad|angry|sleepy|friendly|delicious|fresh|tasty|fast|'
          'colorful|bright|pastel|minimalist|pixel art|low poly|anime|comic|sketch of|clipart of|logo of|poster of|close-up of|cute little|'
          'professional|award winning|stylized|hand drawn|abstract').split('|')
AFTER = ('playing|dancing|running|swimming|sitting|standing|eating|sleeping|walking|reading a book|in the park|in the forest|on a lake|on a beach|'
         'in the snow|in the rain|at night|at sunset|by the sea|on a table|on grass|in space|under the stars|over mountains|in a city|on the street|'
         'with a smile|wearing a hat|with flowers|in the sky|on the moon|trending on artstation|soft lighting|octane render|unreal engine|by a river|'
         'in a garden|for kids|for a website|made of glass|made of wood|full of details|with long shadows|and friends').split('|')
NEGATIVE = ['blurry', 'low quality', 'bad', 'ugly', 'watermark', 'text', 'noise', 'deformed', 'artifacts',
            'grainy', 'dark', 'cropped', 'worst quality', 'jpeg', 'distorted', '']
COMMON = {   # what people ask for, where the data calls it otherwise
    'car': 'automobile', 'heart': 'red heart', 'moon': 'crescent moon', 'ball': 'soccer ball', 'tree': 'deciduous tree',
    'apple': 'red apple', 'flower': 'tulip', 'clock': 'alarm clock', 'hat': 'top hat', 'boat': 'sailboat',
    'planet': 'ringed planet', 'plane': 'airplane', 'football': 'soccer ball', 'smiley': 'smiling face with smiling eyes',
    'computer': 'laptop', 'phone': 'mobile phone', 'mountain': 'snow-capped mountain', 'gift': 'wrapped gift',
    'present': 'wrapped gift', 'coffee': 'hot beverage', 'cup': 'hot beverage', 'beer': 'beer mug', 'cake': 'birthday cake',
    'book': 'closed book', 'train': 'locomotive', 'ship': 'ship', 'sun': 'sun', 'cloud': 'cloud', 'king': 'crown',
    'umbrella': 'umbrella', 'light bulb': 'light bulb', 'lamp': 'light bulb', 'camera': 'camera', 'guitar': 'guitar',
    'glasses': 'glasses', 'shoe': 'running shoe', 'shirt': 't-shirt', 'dress': 'dress', 'bag': 'handbag', 'box': 'package',
    'butterfly': 'butterfly', 'snake': 'snake', 'leaf': 'maple leaf', 'burger': 'hamburger', 'fries': 'french fries',
    'ice cream': 'soft ice cream', 'bike': 'bicycle', 'globe': 'globe showing Europe-Africa', 'earth': 'globe showing Europe-Africa',
    'tv': 'television', 'castle': 'castle', 'bear': 'bear', 'lion': 'lion', 'tiger': 'tiger', 'rabbit': 'rabbit', 'pencil': 'pencil',
    'orange': 'tangerine', 'water': 'droplet', 'drop': 'droplet', 'tea': 'teacup without handle', 'cup of tea': 'teacup without handle',
    'cup of coffee': 'hot beverage', 'mug': 'hot beverage', 'mug of coffee': 'hot beverage', 'wine': 'wine glass', 'glass of wine': 'wine glass',
    'cherry': 'cherries', 'soup': 'steaming bowl', 'bowl of soup': 'steaming bowl', 'lake': 'national park', 'snow': 'snowflake',
    'storm': 'cloud with lightning and rain', 'thunderstorm': 'cloud with lightning and rain', 'lightning': 'high voltage', 'wizard': 'mage',
    'witch': 'woman mage', 'devil': 'smiling face with horns', 'chef': 'cook', 'doctor': 'health worker', 'nurse': 'woman health worker',
    'police officer': 'police officer', 'policeman': 'police officer', 'sword': 'dagger', 'swords': 'crossed swords', 'gun': 'water pistol',
    'prince': 'prince', 'queen': 'princess', 'princess': 'princess', 'paint': 'artist palette', 'palette': 'artist palette',
    'smartphone': 'mobile phone', 'sofa': 'couch and lamp', 'couch': 'couch and lamp', 'letter': 'envelope', 'mail': 'envelope', 'ufo': 'flying saucer',
    'spaceship': 'rocket', 'space ship': 'rocket', 'space rocket': 'rocket', 'bridge': 'bridge at night', 'hand': 'raised hand', 'sock': 'socks',
    'santa': 'Santa Claus', 'pirate': 'pirate flag', 'saw': 'carpentry saw', 'angel': 'baby angel', 'knife': 'kitchen knife', 'pasta': 'spaghetti',
    'rice': 'cooked rice', 'salad': 'green salad', 'cheese': 'cheese wedge', 'corn': 'ear of corn', 'pepper': 'hot pepper', 'chili': 'hot pepper',
    'truck': 'delivery truck', 'lorry': 'delivery truck', 'sports car': 'racing car', 'race car': 'racing car', 'bus': 'bus', 'taxi': 'taxi',
    'beach': 'beach with umbrella', 'island': 'desert island', 'forest': 'evergreen tree', 'pine tree': 'evergreen tree', 'fir': 'evergreen tree',
    'pine': 'evergreen tree', 'oak': 'deciduous tree', 'oak tree': 'deciduous tree', 'green tree': 'deciduous tree', 'palm': 'palm tree',
    'christmas tree': 'Christmas tree', 'rain': 'cloud with rain', 'rain cloud': 'cloud with rain', 'bee': 'honeybee', 'dinosaur': 'T-Rex', 't-rex': 'T-Rex',
    'pumpkin': 'jack-o-lantern', 'halloween pumpkin': 'jack-o-lantern', 'bird': 'bird', 'fish': 'fish', 'goldfish': 'tropical fish', 'horse': 'horse', 'cow': 'cow', 'pig': 'pig',
    'chick': 'baby chick', 'puppy': 'dog', 'kitten': 'cat', 'kitty': 'cat', 'bunny': 'rabbit', 'teddy': 'teddy bear', 'monster': 'alien monster', 'robot': 'robot',
    'ice cream cone': 'soft ice cream', 'icecream': 'soft ice cream', 'slice of pizza': 'pizza', 'pizza slice': 'pizza', 'slice of cake': 'shortcake',
    'piece of cake': 'shortcake', 'cupcake': 'cupcake', 'donut': 'doughnut', 'doughnut': 'doughnut', 'chocolate': 'chocolate bar', 'bread': 'bread',
    'loaf of bread': 'bread', 'milk': 'glass of milk', 'juice': 'beverage box', 'cocktail': 'cocktail glass', 'champagne': 'bottle with popping cork', 'bottle': 'baby bottle',
    'piano': 'musical keyboard', 'keyboard': 'keyboard', 'headphones': 'headphone', 'desktop computer': 'desktop computer', 'mouse': 'mouse', 'basketball': 'basketball',
    'hourglass': 'hourglass done', 'watch': 'watch', 'bath': 'bathtub', 'table': 'chair', 'bed': 'bed', 'necklace': 'prayer beads', 'boot': "woman's boot", 'boots': "woman's boot",
    'glove': 'gloves', 'jacket': 'coat', 'shoes': 'running shoe', 'sneaker': 'running shoe', 'sneakers': 'running shoe', 'firework': 'fireworks', 'balloons': 'balloon', 'party': 'party popper',
    'flowers': 'bouquet', 'daisy': 'blossom', 'blossom': 'blossom', 'cactus': 'cactus', 'world': 'globe showing Europe-Africa', 'planet earth': 'globe showing Europe-Africa',
    'saturn': 'ringed planet', 'full moon': 'full moon', 'half moon': 'first quarter moon', 'night sky': 'milky way', 'galaxy': 'milky way', 'flame': 'fire',
    'love': 'red heart', 'broken heart': 'broken heart', 'smile': 'smiling face with smiling eyes', 'happy face': 'smiling face with smiling eyes', 'sad face': 'crying face',
    'angry face': 'angry face', 'laughing face': 'face with tears of joy', 'heart eyes': 'smiling face with heart-eyes', 'trophy': 'trophy', 'cup trophy': 'trophy', 'medal': 'sports medal', 'gold medal': '1st place medal', 'mushroom': 'mushroom', 'fire': 'fire', 'rose': 'rose', 'sunflower': 'sunflower', 'ghost': 'ghost',
    'alien': 'alien', 'skull': 'skull', 'snowman': 'snowman', 'bell': 'bell', 'key': 'key', 'lock': 'locked', 'diamond': 'gem stone'}
BACKDROPS = [' on a %s background', ' on %s background', ', %s background', ' on %s', ' with a %s background',
             ' against a %s background', ' in front of a %s background', ', background %s', ', background: %s', ', %s backdrop', ' before a %s background', ', %s backdrop', ' over %s']


def clean(name):
    return re.sub(r'\s+', ' ', name.replace('’', "'").replace('\xa0', ' ')).strip()


class Meanings:
    """phrase -> name, for every phrase that says one; name and style -> item."""

    def __init__(self, items):
        self.items, self.by = items, collections.defaultdict(dict)
        for i in items:
            self.by[clean(i.name)][i.style] = i.index
        group = {clean(i.name): i.group for i in items}
        words = collections.defaultdict(list)
        for i in items:
            n = clean(i.name)
            for place, k in enumerate(i.keywords):
                k = clean(k).lower()
                if k not in self.by and len(k) > 2 and n not in [x[1] for x in words[k]]:
                    late = group[n] in ('Flags', 'People & Body', 'Symbols')
                    words[k].append(((k not in n.lower().split(), late, len(n.split()), place), n))
        self.phrase = {n: n for n in self.by}
        for k, found in words.items():
            if len(found) <= 40 and k.isascii():
                self.phrase[k] = min(found)[1]
        self.phrase.update((k, n) for k, n in COMMON.items() if n in self.by)
        self.asked = collections.defaultdict(list)      # what people say, of what they ask for often
        for k, n in COMMON.items():
            if n in self.by:
                self.asked[n].append(k)
        self.others = collections.defaultdict(list)
        for k, n in self.phrase.items():
            if k != n:
                self.others[n].append(k)

    def item(self, phrase, style=None):
        """The sticker; 3-D where no style is asked for."""
        styles = self.by[self.phrase[phrase]]
        return styles.get(style) if style else styles.get('fluent3d', styles.get('noto'))


def about(rng, meanings, item):
    """A phrase for the item's thing."""
    n = clean(item.name)
    r = rng.random()
    others = meanings.others.get(n)
    if n in meanings.asked and rng.random() < .5:
        return rng.choice(meanings.asked[n])
    if r > .82 and others:
        return rng.choice(others)
    flag = n.startswith('flag ')
    if flag and r < .5:
        return rng.choice([f'flag of {n[5:]}', f'{n[5:]} flag'])
    return n


def caption(rng, meanings, scene):
    """A caption, and whether it names the style."""
    item = meanings.items[scene.item]
    other = meanings.item(clean(item.name))
    styled = other != item.index or rng.random() < .4
    t = about(rng, meanings, item)
    if scene.paint:
        t = scene.paint + ' ' + t
    if rng.random() < .15:
        t = rng.choice(FILLERS) + ' ' + t
    if rng.random() < .15:
        t = rng.choice(AROUND) + rng.choice([' ', ' ', ' a ']) + t
    if rng.random() < .15:
        t += rng.choice([' ', ' ', ', ']) + rng.choice(AFTER)
    if scene.motion:
        m = rng.choice(MOTION_WORDS[scene.motion])
        single = ' ' not in m and m.endswith('ing')
        t = rng.choice([f'{m} {t}' if single else f'{t} {m}', f'{t} {m}', f'{t} is {m}' if m.endswith('ing') else f'{t}, {m}'])
    t = rng.choice(LEADS) + t
    if styled:
        s = rng.choice(STYLE_WORDS[item.style])
        t = rng.choice([f'{s} of {t}', f'{t}, {s}', f'{t}, {s}', f'{s} {t}', f'{t} in {s}'])
    back = ''
    if scene.colour != 'white' or rng.random() < .25:
        back = rng.choice(BACKDROPS) % rng.choice([scene.colour] + ([scene.colour.replace('gray', 'grey')]))
    tail = ', ' + rng.choice(TAILS) if rng.random() < .15 else ''
    loop = rng.choice(LOOPS) if scene.loop else ''
    t = t + rng.choice([back + tail, tail + back]) + loop
    if rng.random() < .4:
        t = ' '.join(rng.choices(CHAT, k=rng.randint(1, 4))) + ' ' + t
    if rng.random() < .12:
        t += ' ' + ' '.join(rng.choices(CHAT, k=rng.randint(1, 3)))
    if rng.random() < .25:
        t = t[0].upper() + t[1:]
    if rng.random() < .15:
        t += '.'
    return t
