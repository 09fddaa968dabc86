//! Objects by their namespace, so that what concerns a pod is found without looking at what concerns others.

use std::collections::BTreeMap;

/// Objects of one kind, by their namespace, in the order that they had.
#[derive(Debug)]
pub struct ByNamespace<'a, T>(BTreeMap<&'a str, Vec<&'a T>>);

impl<'a, T> ByNamespace<'a, T> {
    /// These.
    pub fn of(objects: &'a [T], namespace: fn(&T) -> &str) -> Self {
        let mut all: BTreeMap<&str, Vec<&T>> = BTreeMap::new();
        for object in objects {
            all.entry(namespace(object)).or_default().push(object);
        }
        Self(all)
    }

    /// Those of a namespace.
    pub fn get(&self, namespace: &str) -> &[&'a T] {
        self.0.get(namespace).map_or(&[], Vec::as_slice)
    }
}
