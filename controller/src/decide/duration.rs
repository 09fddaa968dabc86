//! Durations in whole seconds or microseconds, written as Kubernetes and Prometheus write them: `30s`, `1h30m`, `8d`, `5ms`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// It is not made of numbers and units.
    #[error("is no duration; write whole numbers with d, h, m, s, ms or us, such as 5m, 1h30m or 2ms")]
    Text,
    /// It has parts that are finer than what is asked for.
    #[error("is finer than a second; write whole seconds, such as 30s or 5m")]
    Finer,
    /// It is longer than can be counted.
    #[error("is too long")]
    Range,
}

/// The units, the longest first, in microseconds.
const UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1000),
    ("us", 1),
];

fn parse_micros(text: &str) -> Result<u64, DurationError> {
    match text {
        "" => return Err(DurationError::Text),
        "0" => return Ok(0),
        _ => {}
    }
    let mut sum: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(DurationError::Text)?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let (_, micros) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(DurationError::Text)?;
        if number.is_empty() {
            return Err(DurationError::Text);
        }
        let number: u64 = number.parse().map_err(|_| DurationError::Range)?;
        let part = number.checked_mul(*micros).ok_or(DurationError::Range)?;
        sum = sum.checked_add(part).ok_or(DurationError::Range)?;
        rest = after;
    }
    Ok(sum)
}

/// Writes the parts from the longest on.
fn write_micros(f: &mut fmt::Formatter<'_>, micros: u128) -> fmt::Result {
    if micros == 0 {
        return f.write_str("0s");
    }
    let mut left = micros;
    for (unit, length) in UNITS {
        let number = left / u128::from(length);
        left %= u128::from(length);
        if number > 0 {
            write!(f, "{number}{unit}")?;
        }
    }
    Ok(())
}

/// What both durations can do; the number is how many microseconds one of them has.
macro_rules! duration {
    ($duration:ident, $micros:literal) => {
        impl FromStr for $duration {
            type Err = DurationError;

            fn from_str(text: &str) -> Result<Self, DurationError> {
                let micros = parse_micros(text)?;
                if micros.is_multiple_of($micros) {
                    Ok(Self(micros / $micros))
                } else {
                    Err(DurationError::Finer)
                }
            }
        }

        impl fmt::Display for $duration {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_micros(f, u128::from(self.0) * $micros)
            }
        }

        impl Serialize for $duration {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $duration {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(|error| de::Error::custom(format_args!("{text:?} {error}")))
            }
        }
    };
}

/// A duration in microseconds: what threads wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u64);

duration!(Micros, 1);

/// A duration in whole seconds: what controllers wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(pub u64);

duration!(Seconds, 1_000_000);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        for (text, seconds) in
            [("0", 0), ("30s", 30), ("1h30m", 5400), ("8d", 691_200), ("90m", 5400), ("1000ms", 1)]
        {
            assert_eq!(text.parse(), Ok(Seconds(seconds)), "{text}");
        }
        assert_eq!("2ms500us".parse(), Ok(Micros(2500)));
        for text in ["", "5", "m", "5 m", "-5m", "1.5h", "5x", "5mm"] {
            assert_eq!(text.parse::<Seconds>(), Err(DurationError::Text), "{text:?}");
        }
        assert_eq!("5ms".parse::<Seconds>(), Err(DurationError::Finer));
        assert_eq!("99999999999999999999d".parse::<Seconds>(), Err(DurationError::Range));
        assert_eq!(Seconds(5400).to_string(), "1h30m");
        assert_eq!(Micros(2500).to_string(), "2ms500us");
        assert_eq!(Seconds(0).to_string(), "0s");
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(micros in any::<u64>()) {
            prop_assert_eq!(Micros(micros).to_string().parse(), Ok(Micros(micros)));
            let seconds = Seconds(micros / 1_000_000);
            prop_assert_eq!(seconds.to_string().parse(), Ok(seconds));
        }
    }
}
