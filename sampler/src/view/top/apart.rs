//! Names of several rows in little room, so that no two look alike.
//!
//! Each is shortened by itself first ([`Name::within`]). Those that come out alike are shown from where they differ; what is
//! called the same in full, as a container and the one that took its place, is told by the number of its cgroup.

use std::collections::HashMap;

use sampler_common::snapshot::CgroupId;

use super::name::{CUT, Name, cut};

/// What stands before the number of a cgroup.
const NUMBER: char = '#';

/// All these names, each in at most so many characters. They differ as long as there is room for the number of a cgroup.
pub fn within<'a>(
    rows: impl IntoIterator<Item = (&'a Name, Option<CgroupId>)>,
    columns: usize,
) -> Vec<String> {
    let rows: Vec<_> = rows.into_iter().map(|(name, id)| (name.whole(), id, name)).collect();
    let mut texts: Vec<_> = rows.iter().map(|(.., name)| name.within(columns)).collect();
    for mut alike in alike(&texts) {
        // Whoever has the longest beginning in common with another then stands beside it.
        alike.sort_by(|a, b| rows[*a].0.cmp(&rows[*b].0));
        let beside = |at: usize, other: Option<usize>| {
            other.map_or(0, |other| common(&rows[alike[at]].0, &rows[alike[other]].0))
        };
        for at in 0..alike.len() {
            let next = (at + 1 < alike.len()).then_some(at + 1);
            let from = beside(at, at.checked_sub(1)).max(beside(at, next));
            texts[alike[at]] = from_there(&rows[alike[at]].0, from, columns);
        }
    }
    for alike in alike(&texts) {
        for at in alike {
            if let Some(id) = rows[at].1 {
                let number = format!("{NUMBER}{id}");
                let room = columns.saturating_sub(number.chars().count());
                texts[at] = cut(&(cut(&texts[at], room) + &number), columns);
            }
        }
    }
    texts
}

/// Places of the texts that are there several times.
fn alike(texts: &[String]) -> Vec<Vec<usize>> {
    let mut places = HashMap::<&str, Vec<usize>>::new();
    for (at, text) in texts.iter().enumerate() {
        places.entry(text).or_default().push(at);
    }
    places.into_values().filter(|places| places.len() > 1).collect()
}

/// How many characters two texts begin with alike; none where they are the same: they differ nowhere.
fn common(a: &str, b: &str) -> usize {
    if a == b { 0 } else { a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count() }
}

/// A text without so many characters at its beginning; where hardly any are left, its last part.
fn from_there(text: &str, from: usize, columns: usize) -> String {
    const HARDLY_ANY: usize = 4;
    let rest: String = text.chars().skip(from).collect();
    let last = text.rsplit('/').next().unwrap_or_default();
    match rest.chars().count() {
        _ if from == 0 => cut(text, columns),
        0..HARDLY_ANY => cut(&format!("{CUT}{last}"), columns),
        _ => cut(&format!("{CUT}{rest}"), columns),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn pods(names: &[&str]) -> Vec<Name> {
        let name = |name: &&str| {
            let [namespace, pod, container] = name.split('/').collect::<Vec<_>>()[..] else { panic!() };
            Name::Pod { namespace: namespace.into(), pod: pod.into(), container: container.into() }
        };
        names.iter().map(name).collect()
    }

    fn shown(names: &[&str], columns: usize) -> Vec<String> {
        within(pods(names).iter().zip((4711..).map(|id| Some(CgroupId(id)))), columns)
    }

    #[test]
    fn what_would_look_alike_is_shown_from_where_it_differs() {
        assert_eq!(
            shown(&["team-a/web-0/nginx", "team-b/web-0/nginx"], 13),
            ["…a/web-…nginx", "…b/web-…nginx"]
        );
        // A container is left out where it is called like its pod, which several may be.
        assert_eq!(shown(&["shop/web-0/web", "shop/web-0/web-0"], 12), ["…web", "…web-0"]);
        let middle = ["shop/checkout-main-7d9f/api", "shop/checkout-test-7d9f/api", "shop/cart-0/api"];
        assert_eq!(shown(&middle, 14), ["…main-7d9f/api", "…test-7d9f/api", "cart-0/api"]);
    }

    #[test]
    fn what_is_called_the_same_has_a_number() {
        let restarted = ["shop/web-0/nginx", "shop/web-0/nginx", "shop/web-1/nginx"];
        assert_eq!(shown(&restarted, 16), ["shop/…nginx#4711", "shop/…nginx#4712", "shop/web-1/nginx"]);
        assert_eq!(shown(&restarted[..1], 16), ["shop/web-0/nginx"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn no_two_are_alike_and_each_fits(
            parts in prop::collection::vec(("[ab]{1,3}", "[ab-]{1,24}", "[ab]{1,3}"), 1..24),
            columns in 10usize..40,
        ) {
            let whole: Vec<_> = parts.iter().map(|(a, b, c)| format!("{a}/{b}/{c}")).collect();
            let texts = shown(&whole.iter().map(String::as_str).collect::<Vec<_>>(), columns);
            prop_assert!(texts.iter().all(|text| text.chars().count() <= columns), "{texts:?}");
            let apart: BTreeSet<_> = texts.iter().collect();
            prop_assert_eq!(apart.len(), texts.len(), "{:?} of {:?}", texts, whole);
        }
    }
}
