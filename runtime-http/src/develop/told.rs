//! What a developer was told about files, so that nothing is said twice while they are as they were.

use std::{collections::BTreeMap, fs, path::PathBuf, time::SystemTime};

/// Something to say about a file, as long as it is so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    pub file: PathBuf,
    pub text: String,
}

/// What was said last, and when its file was changed last.
#[derive(Debug, Default)]
pub struct Told(BTreeMap<String, Option<SystemTime>>);

impl Told {
    /// Those of all remarks that hold now which are to be said: they are new, or their file was changed since they were said.
    pub fn news(&mut self, remarks: Vec<Remark>) -> Vec<String> {
        let modified = |file| fs::metadata(file).and_then(|file| file.modified()).ok();
        let now: Vec<_> = remarks.into_iter().map(|Remark { file, text }| (text, modified(file))).collect();
        let news = now.iter().filter(|(text, modified)| self.0.get(text) != Some(modified));
        let news = news.map(|(text, _)| text.clone()).collect();
        // What holds no more is forgotten: it is news when it comes back.
        self.0 = now.into_iter().collect();
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_until_the_file_is_changed_or_the_remark_did_not_hold() {
        let directory = std::env::temp_dir().join(format!("told-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let file = directory.join("f.wat");
        let remark = |text: &str| Remark { file: file.clone(), text: text.to_owned() };
        let mut told = Told::default();
        fs::write(&file, "").unwrap();
        assert_eq!(told.news(vec![remark("a"), remark("b")]), ["a", "b"]);
        assert_eq!(told.news(vec![remark("a"), remark("c")]), ["c"]);
        assert_eq!(told.news(vec![remark("b")]), ["b"]);
        let later = SystemTime::now() + std::time::Duration::from_secs(1);
        fs::File::open(&file).unwrap().set_modified(later).unwrap();
        assert_eq!(told.news(vec![remark("b")]), ["b"]);
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(told.news(vec![remark("b")]), ["b"]);
        assert_eq!(told.news(vec![remark("b")]), Vec::<String>::new());
    }
}
