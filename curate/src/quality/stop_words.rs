//! The most frequent words of languages.

use memchr::memmem;
use unicode_script::{Script, UnicodeScript};

use super::table::fingerprint;

/// Stop words by ISO 639-3 code: Gopher's for English, and for other languages words as frequent, chosen by us among
/// articles, conjunctions, prepositions and auxiliary verbs.
///
/// In languages without spaces they are looked for anywhere in the text.
#[rustfmt::skip]
pub const STOP_WORDS: &[(&str, &[&str])] = &[
    ("afr", &["die", "en", "van", "is", "het", "in", "wat", "vir", "nie", "met", "om", "te"]),
    ("amh", &["እና", "ነው", "ወይም", "ላይ", "ውስጥ", "ማንኛውም", "ሰው", "መብት", "አለው", "ሁሉ"]),
    ("ara", &["في", "من", "على", "إلى", "أن", "أو", "التي", "هذا", "هذه", "عن", "مع", "كل"]),
    ("aze", &["və", "bu", "bir", "ki", "ilə", "üçün", "da", "də", "ya", "hər", "olan"]),
    ("bel", &["і", "у", "на", "не", "што", "з", "або", "для", "да", "як", "ён", "за"]),
    ("ben", &["এবং", "ও", "এই", "করা", "তার", "থেকে", "না", "জন্য", "একটি", "হয়", "বা", "যে"]),
    ("bul", &["на", "и", "да", "се", "за", "от", "в", "е", "с", "не", "като", "или"]),
    ("cat", &["de", "la", "el", "i", "que", "en", "a", "els", "les", "per", "una", "amb"]),
    ("ces", &["a", "v", "se", "na", "je", "že", "s", "z", "do", "nebo", "pro", "k"]),
    ("cmn", &["的", "是", "在", "和", "有", "不", "了", "人", "为", "以", "這", "这"]),
    ("dan", &["og", "i", "at", "det", "en", "til", "er", "af", "for", "på", "der", "ikke"]),
    ("deu", &["der", "die", "und", "in", "zu", "den", "das", "nicht", "von", "ist", "mit", "auf"]),
    ("ell", &["και", "το", "να", "του", "η", "της", "με", "που", "ο", "την", "για", "είναι"]),
    ("eng", &["the", "be", "to", "of", "and", "that", "have", "with"]),
    ("epo", &["la", "kaj", "de", "en", "al", "estas", "por", "ne", "ke", "aŭ", "kun", "ĉiu"]),
    ("est", &["ja", "on", "ei", "et", "ka", "või", "see", "kui", "oma", "mis", "iga", "ta"]),
    ("eus", &["eta", "da", "ez", "du", "bat", "dira", "edo", "ere", "hau", "izan", "den"]),
    ("fin", &["ja", "on", "ei", "että", "tai", "se", "joka", "ovat", "myös", "kuin", "hän", "oli"]),
    ("fra", &["de", "la", "le", "et", "les", "des", "en", "un", "une", "que", "est", "à"]),
    ("guj", &["અને", "છે", "તે", "આ", "કે", "માટે", "પણ", "કોઈ", "દરેક", "એક", "નથી"]),
    ("heb", &["של", "את", "על", "לא", "הוא", "או", "כל", "זה", "עם", "אדם", "גם", "היא"]),
    ("hin", &["के", "का", "की", "में", "है", "और", "से", "को", "कि", "हैं", "या", "नहीं"]),
    ("hrv", &["i", "u", "je", "na", "se", "za", "od", "da", "su", "ili", "s", "ne"]),
    ("hun", &["a", "az", "és", "hogy", "nem", "is", "egy", "vagy", "van", "meg", "de", "minden"]),
    ("hye", &["և", "է", "որ", "են", "ու", "իր", "մեջ", "կամ", "ունի", "համար", "այդ", "չի"]),
    ("ind", &["yang", "dan", "di", "untuk", "dengan", "dari", "dalam", "ini", "atau", "tidak", "pada", "itu"]),
    ("isl", &["og", "að", "í", "á", "er", "sem", "til", "um", "ekki", "eða", "við", "með"]),
    ("ita", &["di", "e", "il", "la", "che", "in", "un", "per", "del", "non", "della", "è"]),
    ("jav", &["lan", "ing", "sing", "kang", "utawa", "saka", "ora", "iku", "iki", "marang", "karo", "uga"]),
    ("jpn", &["の", "に", "は", "を", "た", "が", "で", "て", "と", "し", "れ", "も"]),
    ("kan", &["ಮತ್ತು", "ಈ", "ಒಂದು", "ಅಥವಾ", "ಯಾವುದೇ", "ಎಂದು", "ಆ", "ಎಲ್ಲ", "ತನ್ನ", "ಹಾಗೂ"]),
    ("kat", &["და", "არის", "რომ", "ამ", "თუ", "ან", "უნდა", "არ", "მის", "ყოველ", "აქვს", "უფლება"]),
    ("khm", &["និង", "ការ", "នៃ", "ក្នុង", "ជា", "មាន", "បាន", "ដែល", "ឬ", "ដោយ"]),
    ("kor", &["및", "이", "그", "수", "모든", "또는", "있는", "것", "등", "있다", "의", "대한"]),
    ("lao", &["ແລະ", "ການ", "ຂອງ", "ໃນ", "ທີ່", "ເປັນ", "ມີ", "ໄດ້", "ຫຼື", "ໃຫ້"]),
    ("lat", &["et", "in", "est", "non", "ad", "ut", "cum", "aut", "ex", "sed", "quod", "ab"]),
    ("lav", &["un", "ir", "ar", "uz", "no", "ka", "vai", "kas", "par", "nav", "pie", "lai"]),
    ("lit", &["ir", "į", "yra", "kad", "su", "arba", "iš", "ar", "bei", "jo", "kaip", "turi"]),
    ("mal", &["ഒരു", "ഈ", "എന്ന", "ഉം", "അല്ലെങ്കിൽ", "ആ", "എല്ലാ", "തന്റെ", "ഏതൊരു", "കൂടി"]),
    ("mar", &["आणि", "आहे", "या", "व", "किंवा", "हा", "ही", "त्या", "नाही", "सर्व", "तो"]),
    ("mkd", &["на", "и", "да", "се", "за", "во", "од", "со", "е", "или", "не", "има"]),
    ("mya", &["သည်", "၏", "များ", "နှင့်", "တွင်", "ကို", "မှ", "ရန်", "သော", "ဖြစ်"]),
    ("nep", &["र", "को", "मा", "छ", "वा", "लाई", "पनि", "हो", "गर्न", "यो", "प्रत्येक", "सबै"]),
    ("nld", &["de", "van", "het", "een", "en", "in", "is", "op", "te", "dat", "met", "voor"]),
    ("nno", &["og", "i", "det", "er", "på", "til", "som", "ikkje", "av", "for", "ein", "med"]),
    ("nob", &["og", "i", "det", "er", "på", "til", "som", "en", "av", "for", "ikke", "med"]),
    ("ori", &["ଓ", "ଏହି", "ଏବଂ", "ପାଇଁ", "କରିବା", "ଏକ", "ସେ", "କିମ୍ବା", "ଏହା", "ନାହିଁ"]),
    ("pan", &["ਦੇ", "ਦੀ", "ਦਾ", "ਹੈ", "ਅਤੇ", "ਨੂੰ", "ਵਿਚ", "ਵਿੱਚ", "ਤੇ", "ਨਾਲ", "ਜਾਂ", "ਹਰ"]),
    ("pes", &["و", "در", "به", "از", "که", "را", "این", "است", "با", "یا", "هر", "برای"]),
    ("pol", &["i", "w", "na", "z", "do", "nie", "się", "jest", "że", "o", "oraz", "lub"]),
    ("por", &["de", "a", "o", "que", "e", "do", "da", "em", "um", "para", "com", "não"]),
    ("ron", &["de", "și", "în", "la", "a", "o", "cu", "din", "care", "pe", "să", "sau"]),
    ("rus", &["и", "в", "не", "на", "с", "что", "по", "к", "или", "для", "как", "это"]),
    ("sin", &["හා", "සහ", "ද", "ඒ", "මේ", "හෝ", "සඳහා", "ඇත", "සෑම", "විසින්"]),
    ("slk", &["a", "v", "na", "sa", "je", "že", "s", "z", "do", "alebo", "pre", "k"]),
    ("slv", &["in", "v", "je", "na", "se", "za", "da", "z", "ali", "so", "ne", "do"]),
    ("som", &["iyo", "ka", "waa", "oo", "uu", "in", "ku", "ama", "ee", "ah", "la"]),
    ("spa", &["de", "la", "que", "el", "en", "y", "a", "los", "se", "del", "las", "un"]),
    ("sqi", &["dhe", "të", "e", "në", "i", "për", "me", "një", "që", "nga", "ose", "është"]),
    ("srp", &["и", "у", "је", "на", "се", "за", "да", "или", "i", "u", "je", "na", "se", "za", "da", "ili"]),
    ("swe", &["och", "i", "att", "det", "en", "som", "på", "är", "av", "för", "med", "till"]),
    ("swh", &["na", "ya", "wa", "kwa", "ni", "katika", "la", "za", "kila", "au", "yake", "cha"]),
    ("tam", &["ஒரு", "மற்றும்", "இந்த", "அல்லது", "என்று", "அந்த", "எந்த", "தமது", "உரிமை", "உண்டு", "ஓர்"]),
    ("tel", &["మరియు", "ఈ", "ఒక", "లేదా", "ఆ", "తన", "ప్రతి", "కు", "అన్ని", "గల", "యొక్క"]),
    ("tgl", &["ang", "ng", "sa", "na", "at", "mga", "ay", "o", "may", "hindi", "kanyang", "bawat"]),
    ("tha", &["ที่", "และ", "ใน", "การ", "ของ", "มี", "เป็น", "จะ", "ได้", "หรือ"]),
    ("tuk", &["we", "bir", "bu", "hem", "bilen", "üçin", "ýa-da", "hukugy", "ol", "her", "bar"]),
    ("tur", &["ve", "bir", "bu", "için", "da", "de", "ile", "her", "olarak", "veya", "olan", "çok"]),
    ("ukr", &["і", "в", "на", "не", "з", "що", "та", "до", "або", "за", "як", "для"]),
    ("urd", &["کے", "اور", "کا", "کی", "میں", "ہے", "کو", "سے", "یا", "کہ", "ہر", "پر"]),
    ("uzb", &["va", "bu", "bir", "bilan", "uchun", "har", "ham", "yoki", "ва", "бу", "бир", "билан", "учун", "ҳар", "ҳам"]),
    ("vie", &["và", "của", "có", "các", "là", "được", "cho", "trong", "không", "những", "người", "một"]),
    ("yid", &["און", "די", "פון", "אין", "צו", "דער", "איז", "מיט", "האָט", "אַ", "זיין", "יעדער"]),
    ("zul", &["futhi", "noma", "ukuthi", "unelungelo", "wonke", "umuntu", "kanye", "ngokuthi", "nge"]),
];

/// Languages whose words have no space between them.
const UNSPACED: &[&str] = &[
    "bod", "cmn", "jpn", "khm", "lao", "mya", "tha", "wuu", "yue", "zho",
];

/// The built-in stop words of a language; none if there is no list.
#[must_use]
pub fn stop_words_of(language: &str) -> &'static [&'static str] {
    STOP_WORDS
        .iter()
        .find(|(code, _)| *code == language)
        .map_or(&[], |(_, words)| words)
}

/// A list ready to look for.
#[derive(Debug)]
pub(crate) struct StopWords {
    /// Fingerprint of each word, sorted; empty for languages without spaces.
    prints: Vec<u64>,
    /// Which fingerprints there may be, by their last six bits.
    filter: u64,
    /// What to look for anywhere in languages without spaces.
    anywhere: Vec<memmem::Finder<'static>>,
    /// The scripts of the words.
    scripts: Vec<Script>,
}

impl StopWords {
    pub(crate) fn new<'a>(language: &str, words: impl Iterator<Item = &'a str>) -> Self {
        let mut list = Self {
            prints: Vec::new(),
            filter: 0,
            anywhere: Vec::new(),
            scripts: Vec::new(),
        };
        for word in words {
            let script = word
                .chars()
                .next()
                .map_or(Script::Unknown, |first| first.script());
            if !list.scripts.contains(&script) {
                list.scripts.push(script);
            }
            if UNSPACED.contains(&language) {
                list.anywhere.push(memmem::Finder::new(word).into_owned());
            } else {
                let print = fingerprint(word.as_bytes(), 0, word.len());
                list.filter |= 1 << (print & 63);
                list.prints.push(print);
            }
        }
        list.prints.sort_unstable();
        list.prints.dedup();
        list
    }

    /// How many words the list has.
    pub(crate) fn len(&self) -> usize {
        self.prints.len() + self.anywhere.len()
    }

    /// Whether a letter is of the script of the list: a language may be written in others, which the list says nothing of.
    #[inline]
    pub(crate) fn has_script_of(&self, letter: char) -> bool {
        let of = |script: &Script| match script {
            Script::Latin if letter.is_ascii() => true,
            // Japanese particles are Hiragana, but most other words are not.
            Script::Han | Script::Hiragana => {
                matches!(letter.script(), Script::Han | Script::Hiragana | Script::Katakana)
            }
            script => letter.script() == *script,
        };
        self.scripts.iter().any(of)
    }

    /// The place in the list of a core between two positions, if it is a stop word.
    #[inline]
    pub(crate) fn find(&self, print: u64) -> Option<usize> {
        if self.filter >> (print & 63) & 1 == 0 {
            return None;
        }
        self.prints.binary_search(&print).ok()
    }

    /// How many of the list occur anywhere in the text.
    pub(crate) fn count_anywhere(&self, text: &str) -> u32 {
        self.anywhere
            .iter()
            .filter(|finder| finder.find(text.as_bytes()).is_some())
            .count() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_of_single_words() {
        assert!(STOP_WORDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(STOP_WORDS.len() >= 20);
        for (language, words) in STOP_WORDS {
            assert!(words.len() >= 8, "{language}");
            assert!(
                words.iter().all(|word| !word.contains(char::is_whitespace)),
                "{language}"
            );
            assert_eq!(
                StopWords::new(language, words.iter().copied()).len(),
                words.len(),
                "{language} repeats one"
            );
        }
    }
}
