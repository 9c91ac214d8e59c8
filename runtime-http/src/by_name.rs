//! What belongs to a function's name, not to one version of its file.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// One `T` for each name. A function that is loaded anew keeps its own as long as something of it is left.
#[derive(Debug)]
pub struct ByName<T>(Mutex<HashMap<Arc<str>, Weak<T>>>);

/// Below this many names none are tidied away.
const FEW: usize = 64;

impl<T> Default for ByName<T> {
    fn default() -> Self {
        ByName(Mutex::default())
    }
}

impl<T> ByName<T> {
    /// That of function `name`, made by `new` if there is none.
    pub fn of(&self, name: &Arc<str>, new: impl FnOnce() -> T) -> Arc<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(name).and_then(Weak::upgrade) {
            return known;
        }
        if all.len() >= FEW && all.len() == all.capacity() {
            all.retain(|_, one| one.strong_count() > 0);
        }
        let one = Arc::new(new());
        all.insert(name.clone(), Arc::downgrade(&one));
        one
    }

    /// All that somebody holds.
    pub fn all(&self) -> Vec<Arc<T>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lives_as_long_as_somebody_holds_it() {
        let all = ByName::default();
        let of = |number: usize, value: usize| all.of(&format!("f{number}").into(), || value);
        let first = of(0, 0);
        assert!(Arc::ptr_eq(&first, &of(0, 1)));
        for number in 1..10_000 {
            drop(of(number, number));
        }
        assert!(Arc::ptr_eq(&first, &of(0, 2)), "tidying keeps what is held");
        assert!(all.0.lock().unwrap().len() < 1000, "names of the past do not pile up");
        drop(first);
        assert_eq!(*of(0, 3), 3);
    }
}
