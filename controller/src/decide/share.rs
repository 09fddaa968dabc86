//! Shares of a whole, exactly: `1%`, `0.5%`, `150%`. No float is involved.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is no share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no percentage with at most one decimal; write one such as 15% or 0.5%")]
pub struct ShareError;

/// A share in thousandths: 150 is 15 %. It may be more than the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PerMille(pub u32);

impl PerMille {
    /// The whole.
    pub const WHOLE: Self = Self(1000);

    /// So many hundredths.
    pub const fn percent(percent: u32) -> Self {
        Self(percent.saturating_mul(10))
    }

    /// As a fraction of 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

impl FromStr for PerMille {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let number = text.strip_suffix('%').ok_or(ShareError)?;
        let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(tenths) || tenths.len() != 1 {
            return Err(ShareError);
        }
        let [whole, tenths] = [whole, tenths].map(|digits| digits.parse::<u32>().map_err(|_| ShareError));
        whole?.checked_mul(10).and_then(|share| share.checked_add(tenths.ok()?)).map(Self).ok_or(ShareError)
    }
}

impl fmt::Display for PerMille {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 10, self.0 % 10) {
            (percent, 0) => write!(f, "{percent}%"),
            (percent, tenths) => write!(f, "{percent}.{tenths}%"),
        }
    }
}

impl Serialize for PerMille {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PerMille {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| de::Error::custom(format_args!("{text:?} {error}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_are_percentages() {
        for (text, share) in [("0%", 0), ("1%", 10), ("0.5%", 5), ("99.9%", 999), ("150%", 1500)] {
            assert_eq!(text.parse(), Ok(PerMille(share)), "{text}");
        }
        for text in ["", "%", "1", "0.01%", "-1%", "1.%", ".5%", "1 %", "+1%", "500000000%"] {
            assert_eq!(text.parse::<PerMille>(), Err(ShareError), "{text}");
        }
        assert_eq!(PerMille::percent(15).fraction(), 0.15);
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(share in any::<u32>()) {
            prop_assert_eq!(PerMille(share).to_string().parse(), Ok(PerMille(share)));
        }
    }
}
