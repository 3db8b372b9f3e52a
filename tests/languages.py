"""English with six other languages: sentences of a subject, a verb, an object and a place."""

import random
from itertools import product

WORDS: dict[str, dict[str, list[str]]] = {
    "en": {
        "subject": [
            *("the boy", "the farmer", "the doctor", "the teacher"),
            *("our neighbour", "the old man", "my brother", "the king"),
        ],
        "verb": ["sees", "buys", "sells", "draws", "finds", "brings"],
        "object": [
            *("a book", "a red apple", "two fish", "a blue car"),
            *("a letter", "three flowers", "a small dog", "a new chair"),
        ],
        "place": ["at home", "in the market", "at school", "in the garden"],
    },
    "de": {
        "subject": [
            *("der Junge", "der Bauer", "der Arzt", "der Lehrer"),
            *("unser Nachbar", "der alte Mann", "mein Bruder", "der König"),
        ],
        "verb": ["sieht", "kauft", "verkauft", "zeichnet", "findet", "bringt"],
        "object": [
            *("ein Buch", "einen roten Apfel", "zwei Fische", "ein blaues Auto"),
            *("einen Brief", "drei Blumen", "einen kleinen Hund", "einen neuen Stuhl"),
        ],
        "place": ["zu Hause", "auf dem Markt", "in der Schule", "im Garten"],
    },
    "hi": {
        "subject": [
            *("लड़का", "किसान", "डॉक्टर", "शिक्षक"),
            *("हमारा पड़ोसी", "बूढ़ा आदमी", "मेरा भाई", "राजा"),
        ],
        "verb": ["देखता है", "खरीदता है", "बेचता है", "बनाता है", "पाता है", "लाता है"],
        "object": [
            *("एक किताब", "एक लाल सेब", "दो मछलियाँ", "एक नीली गाड़ी"),
            *("एक चिट्ठी", "तीन फूल", "एक छोटा कुत्ता", "एक नई कुर्सी"),
        ],
        "place": ["घर पर", "बाज़ार में", "स्कूल में", "बगीचे में"],
    },
    "th": {
        "subject": [
            *("เด็กชาย", "ชาวนา", "หมอ", "ครู"),
            *("เพื่อนบ้านของเรา", "ชายชรา", "น้องชายของฉัน", "พระราชา"),
        ],
        "verb": ["เห็น", "ซื้อ", "ขาย", "วาด", "พบ", "นำ"],
        "object": [
            *("หนังสือหนึ่งเล่ม", "แอปเปิลสีแดงหนึ่งลูก", "ปลาสองตัว", "รถสีน้ำเงินหนึ่งคัน"),
            *("จดหมายหนึ่งฉบับ", "ดอกไม้สามดอก", "สุนัขตัวเล็กหนึ่งตัว", "เก้าอี้ใหม่หนึ่งตัว"),
        ],
        "place": ["ที่บ้าน", "ที่ตลาด", "ที่โรงเรียน", "ในสวน"],
    },
    "zh": {
        "subject": [
            *("男孩", "农民", "医生", "老师"),
            *("我们的邻居", "老人", "我的弟弟", "国王"),
        ],
        "verb": ["看见", "买", "卖", "画", "找到", "带来"],
        "object": [
            *("一本书", "一个红苹果", "两条鱼", "一辆蓝色的汽车"),
            *("一封信", "三朵花", "一只小狗", "一把新椅子"),
        ],
        "place": ["在家里", "在市场上", "在学校里", "在花园里"],
    },
    "ar": {
        "subject": [
            *("الولد", "الفلاح", "الطبيب", "المعلم"),
            *("جارنا", "الرجل العجوز", "أخي", "الملك"),
        ],
        "verb": ["يرى", "يشتري", "يبيع", "يرسم", "يجد", "يحضر"],
        "object": [
            *("كتابا", "تفاحة حمراء", "سمكتين", "سيارة زرقاء"),
            *("رسالة", "ثلاث زهور", "كلبا صغيرا", "كرسيا جديدا"),
        ],
        "place": ["في البيت", "في السوق", "في المدرسة", "في الحديقة"],
    },
    "ja": {
        "subject": [
            *("男の子", "農夫", "医者", "先生"),
            *("私たちの隣人", "老人", "私の弟", "王様"),
        ],
        "verb": ["見ます", "買います", "売ります", "描きます", "見つけます", "持ってきます"],
        "object": [
            *("本", "赤いりんご", "二匹の魚", "青い車"),
            *("手紙", "三本の花", "小さい犬", "新しい椅子"),
        ],
        "place": ["家で", "市場で", "学校で", "庭で"],
    },
}
ORDERS = {
    "en": "{subject} {verb} {object} {place}.",
    "de": "{subject} {verb} {object} {place}.",
    "hi": "{subject} {place} {object} {verb}।",
    "th": "{subject}{verb}{object}{place}",
    "zh": "{subject}{place}{verb}{object}。",
    "ar": "{verb} {subject} {object} {place}.",
    "ja": "{subject}は{place}{object}を{verb}。",
}


def pairs_with(language: str, count: int) -> list[tuple[str, str]]:
    """So many different pairs of English and this language, the same each time."""
    choices = list(product(*(range(len(words)) for words in WORDS["en"].values())))
    chosen = random.Random(language).sample(choices, count)
    return [(_sentence("en", choice), _sentence(language, choice)) for choice in chosen]


def _sentence(language: str, choice: tuple[int, ...]) -> str:
    words = {
        kind: some[number]
        for (kind, some), number in zip(WORDS[language].items(), choice, strict=True)
    }
    return ORDERS[language].format(**words)
