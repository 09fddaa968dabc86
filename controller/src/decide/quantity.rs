//! Kubernetes quantities, exactly: `250m`, `1.5Gi`, `1e3`.
//!
//! Grammar, rounding and canonical form are those of apimachinery's `resource.Quantity`
//! (<https://pkg.go.dev/k8s.io/apimachinery/pkg/api/resource#Quantity>), whose own answers to some 400 texts
//! are the test's cases. No float is involved.
//!
//! # Where it differs from apimachinery
//!
//! * A text without a digit (`m`, `+`) is refused, as the API server's schema does; apimachinery reads 0.
//! * Values from 1.7 × 10²⁹ on are refused; apimachinery takes any, and wraps them when it is asked for a
//!   number.
//! * 1000 E and more are printed with `E`; apimachinery leaves the suffix out and prints another number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Parts of a unit: quantities are kept to 10⁻⁹.
const NANO_DIGITS: i32 = 9;
const NANOS: i128 = 1_000_000_000;
/// The largest value with a binary suffix: apimachinery cuts what is above.
const BINARY_MAX_NANOS: i128 = (i64::MAX as i128) * NANOS;
/// Longer than any quantity that means something; bounds what hostile input costs.
const LONGEST_TEXT: usize = 64;

/// Why a text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// There is no number at its beginning.
    #[error("does not begin with a number; a quantity is a number and a suffix, such as 250m or 1.5Gi")]
    Number,
    /// What follows the number is not a suffix.
    #[error(
        "has an unknown suffix; there are n u m k M G T P E, Ki Mi Gi Ti Pi Ei, and exponents such as e3"
    )]
    Suffix,
    /// Larger, or written with more digits, than can be held exactly.
    #[error("is too large or has too many digits")]
    Range,
}

/// How a quantity is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Powers of 1000 as suffixes: `1500m`, `2k`.
    DecimalSi,
    /// Powers of 1024 as suffixes: `64Mi`.
    BinarySi,
    /// Powers of 1000 as exponents: `2e3`.
    DecimalExponent,
}

/// An exact number of billionths, and the format in which it is printed.
///
/// Equal are those of equal value *and* format; compare [`Quantity::nanos`] for the value alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// So many thousandths of a unit.
    pub const fn from_milli(milli: u64, format: Format) -> Self {
        Self { nanos: milli as i128 * 1_000_000, format }
    }

    /// So many whole units.
    pub const fn from_units(units: u64, format: Format) -> Self {
        Self { nanos: units as i128 * NANOS, format }
    }

    /// The value in billionths of a unit.
    pub const fn nanos(self) -> i128 {
        self.nanos
    }

    /// How it is printed.
    pub const fn format(self) -> Format {
        self.format
    }

    /// The value in units of 10⁻³, rounded up as Kubernetes does (`MilliValue`).
    pub const fn ceil_milli(self) -> i128 {
        div_ceil(self.nanos, 1_000_000)
    }

    /// The value in whole units, rounded up as Kubernetes does (`Value`).
    pub const fn ceil_units(self) -> i128 {
        div_ceil(self.nanos, NANOS)
    }
}

/// Towards positive infinity.
const fn div_ceil(value: i128, by: i128) -> i128 {
    let floor = value.div_euclid(by);
    if value.rem_euclid(by) == 0 { floor } else { floor + 1 }
}

/// What a suffix multiplies with.
#[derive(Clone, Copy)]
enum Multiplier {
    /// 10 to this.
    Ten(i32),
    /// 2 to this.
    Two(u32),
}

fn suffix(text: &str) -> Result<(Multiplier, Format), QuantityError> {
    use Multiplier::{Ten, Two};
    let decimal = |exponent| Ok((Ten(exponent), Format::DecimalSi));
    let binary = |exponent| Ok((Two(exponent), Format::BinarySi));
    match text {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = text.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(QuantityError::Suffix);
            }
            let exponent = exponent.parse().map_err(|_| QuantityError::Range)?;
            Ok((Ten(exponent), Format::DecimalExponent))
        }
    }
}

/// `value` × 10^`exponent`, what is below 1 rounded away from zero.
fn scaled(value: u128, exponent: i32) -> Option<u128> {
    if value == 0 {
        return Some(0);
    }
    let power = 10u128.checked_pow(exponent.unsigned_abs());
    if exponent >= 0 {
        value.checked_mul(power?)
    } else {
        Some(power.map_or(1, |power| value.div_ceil(power)))
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text.len() > LONGEST_TEXT {
            return Err(QuantityError::Range);
        }
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let end = unsigned.find(|c| !is_number(c)).unwrap_or(unsigned.len());
        let (number, rest) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 {
            return Err(QuantityError::Number);
        }
        if fraction.contains('.') {
            return Err(QuantityError::Suffix);
        }
        let (multiplier, format) = suffix(rest)?;

        // Zeros at a fraction's end say nothing and would use up the range.
        let fraction = fraction.trim_end_matches('0');
        let digits = [whole, fraction].concat();
        let digits: u128 =
            if digits.is_empty() { 0 } else { digits.parse().map_err(|_| QuantityError::Range)? };
        // At most LONGEST_TEXT.
        let below_one = fraction.len() as i32;
        let nanos = match multiplier {
            Multiplier::Ten(exponent) => {
                let exponent = exponent.saturating_add(NANO_DIGITS - below_one);
                scaled(digits, exponent).ok_or(QuantityError::Range)?
            }
            Multiplier::Two(exponent) => {
                let product = digits.checked_mul(1 << exponent).ok_or(QuantityError::Range)?;
                let nanos = scaled(product, NANO_DIGITS - below_one).unwrap_or(u128::MAX);
                nanos.min(BINARY_MAX_NANOS as u128)
            }
        };
        let nanos = i128::try_from(nanos).map_err(|_| QuantityError::Range)?;
        // A part of one unit has no binary form.
        let format = if format == Format::BinarySi && (1..NANOS).contains(&nanos) && below_one > 0 {
            Format::DecimalSi
        } else {
            format
        };
        Ok(Self { nanos: if text.starts_with('-') { -nanos } else { nanos }, format })
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: a whole number with the largest suffix that leaves it one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        let Self { nanos, format } = *self;
        if nanos == 0 {
            return f.write_str("0");
        }
        let whole = nanos % NANOS == 0;
        if format == Format::BinarySi && whole && nanos.abs() >= 1024 * NANOS {
            let (number, power) = without_factor(nanos / NANOS, 1024, BINARY.len() - 1);
            return write!(f, "{number}{}", BINARY[power]);
        }
        if format == Format::DecimalExponent {
            // 10³⁸ is above the range.
            let (number, power) = without_factor(nanos, 1000, 13);
            let exponent = 3 * power as i32 - NANO_DIGITS;
            return if exponent == 0 { write!(f, "{number}") } else { write!(f, "{number}e{exponent}") };
        }
        let (number, power) = without_factor(nanos, 1000, DECIMAL.len() - 1);
        write!(f, "{number}{}", DECIMAL[power])
    }
}

/// Takes a factor out of a number as often as it divides it, but at most `most` times; says how often.
fn without_factor(mut number: i128, factor: i128, most: usize) -> (i128, usize) {
    let mut times = 0;
    while times < most && number % factor == 0 {
        number /= factor;
        times += 1;
    }
    (number, times)
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

/// Takes a text, or a plain number as YAML and JSON allow (`cpu: 2`, `cpu: 0.5`).
struct Visitor;

impl Visitor {
    fn read<E: de::Error>(text: &str) -> Result<Quantity, E> {
        text.parse().map_err(|error| E::custom(format_args!("quantity {text:?} {error}")))
    }
}

impl de::Visitor<'_> for Visitor {
    type Value = Quantity;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a quantity, such as 250m, 2 or 1.5Gi")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
        Self::read(text)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
        Self::read(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity, E> {
        Self::read(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Quantity, E> {
        // The shortest decimal text that is this float: what was written, unless it had 17 digits.
        Self::read(&number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|error| panic!("{text:?} {error}"))
    }

    /// What apimachinery v0.36.3 made of each text: `ParseQuantity`, then `CanonicalizeBytes` and `Format`.
    #[test]
    fn texts_are_read_and_printed_as_apimachinery_does() {
        let mut cases = 0;
        for line in include_str!("quantity_cases.tsv").lines() {
            let [text, canonical, format] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("three columns: {line:?}")
            };
            cases += 1;
            match text.parse::<Quantity>() {
                Ok(ours) => {
                    assert_eq!(ours.to_string(), canonical, "{text}");
                    let ours = match ours.format() {
                        Format::DecimalSi => "DecimalSI",
                        Format::BinarySi => "BinarySI",
                        Format::DecimalExponent => "DecimalExponent",
                    };
                    assert_eq!(ours, format, "{text}");
                }
                Err(error) => assert_eq!(canonical, "refused", "{text:?} {error}"),
            }
        }
        assert!(cases > 400, "only {cases} cases");
    }

    #[test]
    fn what_is_no_quantity_is_refused_with_what_is_wrong() {
        let long = "1".repeat(65);
        for (text, error) in [
            ("", QuantityError::Number),
            ("m", QuantityError::Number),
            ("+", QuantityError::Number),
            (".", QuantityError::Number),
            ("--1", QuantityError::Number),
            (" 1", QuantityError::Number),
            ("1 ", QuantityError::Suffix),
            ("1.2.3", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
            ("1e+", QuantityError::Suffix),
            ("1m1", QuantityError::Suffix),
            ("1K", QuantityError::Suffix),
            ("1é", QuantityError::Suffix),
            ("1e9999", QuantityError::Range),
            ("1e99999999999", QuantityError::Range),
            ("200000000000E", QuantityError::Range),
            (&long, QuantityError::Range),
        ] {
            assert_eq!(text.parse::<Quantity>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn whole_numbers_round_up() {
        assert_eq!(quantity("1.0001").ceil_milli(), 1001);
        assert_eq!(quantity("1n").ceil_milli(), 1);
        assert_eq!(quantity("0.1Ki").ceil_units(), 103);
        assert_eq!(quantity("-1.5").ceil_units(), -1);
        assert_eq!(quantity("-2").ceil_units(), -2);
    }

    #[test]
    fn above_the_last_suffix_nothing_is_lost() {
        assert_eq!(quantity("1000E").to_string(), "1000E");
        assert_eq!(quantity("1e21").to_string(), "1e21");
    }

    #[test]
    fn json_takes_texts_and_numbers() {
        for (json, canonical) in
            [("\"250m\"", "250m"), ("2", "2"), ("0.5", "500m"), ("-3", "-3"), ("1e3", "1k")]
        {
            let read: Quantity = serde_json::from_str(json).unwrap();
            assert_eq!(read.to_string(), canonical);
            assert_eq!(serde_json::to_string(&read).unwrap(), format!("\"{canonical}\""));
        }
        let error = serde_json::from_str::<Quantity>("\"2 cores\"").unwrap_err().to_string();
        assert!(error.starts_with("quantity \"2 cores\" has an unknown suffix"), "{error}");
        assert!(serde_json::from_str::<Quantity>("true").is_err());
    }

    fn any_format() -> impl Strategy<Value = Format> {
        prop_oneof![Just(Format::DecimalSi), Just(Format::BinarySi), Just(Format::DecimalExponent)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn what_is_printed_is_read_as_the_same_value(
            digits in any::<i128>(), bits in 0u32..128, format in any_format()
        ) {
            let nanos = (digits >> bits).max(-i128::MAX);
            // Binary quantities end at 2⁶³ − 1.
            let nanos = if format == Format::BinarySi {
                nanos.clamp(-BINARY_MAX_NANOS, BINARY_MAX_NANOS)
            } else {
                nanos
            };
            let printed = (Quantity { nanos, format }).to_string();
            let read = quantity(&printed);
            prop_assert_eq!(read.nanos(), nanos, "{}", &printed);
            prop_assert_eq!(read.to_string(), printed, "printing twice changes nothing");
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,70}|[+-]?[0-9.]{0,40}[eEinumkKMGTP]{0,3}[+-]?[0-9]{0,12}") {
            if let Ok(quantity) = text.parse::<Quantity>() {
                prop_assert_eq!(quantity.to_string().parse::<Quantity>().map(Quantity::nanos), Ok(quantity.nanos()));
            }
        }
    }
}
