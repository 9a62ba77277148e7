//! DynamoDB's numbers: decimals of up to 38 digits, compared and added as such, never as floats.

use std::cmp::Ordering;
use std::fmt;

/// Significant digits of a number, and the powers of ten of its first digit (Amazon DynamoDB Developer Guide, "Data
/// types", Number: 1E-130 to 9.99E+125 and 38 digits).
const MAX_DIGITS: u32 = 38;
const GREATEST: i64 = 125;
const LEAST: i64 = -130;

const TOO_LARGE: &str = "Number overflow. Attempting to store a number with magnitude larger than supported range";
const TOO_SMALL: &str = "Number underflow. Attempting to store a number with magnitude smaller than supported range";
const TOO_LONG: &str = "Attempting to store more than 38 significant digits in a Number";

/// `±coefficient * 10^exponent`, without trailing zeros in the coefficient, so that equal numbers are equal values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Number {
    negative: bool,
    /// Below 10^38.
    coefficient: u128,
    exponent: i16,
}

impl Number {
    /// # Errors
    /// AWS's sentence: no number, too many digits, out of range.
    pub(super) fn parse(text: &str) -> Result<Number, String> {
        let wrong = || format!("The parameter cannot be converted to a numeric value: {text}");
        let (negative, unsigned) = match text.as_bytes().first() {
            None => return Err("The parameter cannot be converted to a numeric value".into()),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let (mantissa, power) = match unsigned.split_once(['e', 'E']) {
            None => (unsigned, 0),
            Some((mantissa, power)) => (mantissa, parse_power(power).ok_or_else(wrong)?),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = || whole.bytes().chain(fraction.bytes());
        if whole.len() + fraction.len() == 0 || !digits().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        // Leading zeros do not count, trailing ones belong to the exponent.
        let leading = digits().take_while(|b| *b == b'0').count();
        let all = whole.len() + fraction.len();
        if leading == all {
            return Ok(Number::default());
        }
        let trailing = fraction.bytes().rev().chain(whole.bytes().rev()).take_while(|b| *b == b'0').count();
        let significant = all - leading - trailing;
        let first = power.saturating_add(whole.len() as i64 - leading as i64 - 1);
        if first > GREATEST {
            return Err(TOO_LARGE.into());
        }
        if first < LEAST {
            return Err(TOO_SMALL.into());
        }
        if significant > MAX_DIGITS as usize {
            return Err(TOO_LONG.into());
        }
        let coefficient =
            digits().skip(leading).take(significant).fold(0u128, |n, digit| n * 10 + u128::from(digit - b'0'));
        let exponent = first - (significant as i64 - 1);
        Ok(Number { negative, coefficient, exponent: exponent as i16 })
    }

    /// The exact sum.
    ///
    /// # Errors
    /// It has more than 38 digits or is out of range.
    pub(super) fn plus(self, other: Number) -> Result<Number, String> {
        if self.coefficient == 0 || other.coefficient == 0 {
            return Ok(if self.coefficient == 0 { other } else { self });
        }
        let exponent = self.exponent.min(other.exponent);
        // A number that is so much longer than the other gives a sum of too many digits.
        let scaled = |n: Number| -> Option<i128> {
            let by = u32::try_from(n.exponent - exponent).ok().filter(|by| *by <= MAX_DIGITS)?;
            let raised = i128::try_from(n.coefficient).ok()?.checked_mul(10i128.checked_pow(by)?)?;
            Some(if n.negative { -raised } else { raised })
        };
        let sum = scaled(self).zip(scaled(other)).and_then(|(a, b)| a.checked_add(b)).ok_or(TOO_LONG)?;
        let (mut coefficient, mut exponent) = (sum.unsigned_abs(), exponent);
        if coefficient == 0 {
            return Ok(Number::default());
        }
        while coefficient % 10 == 0 {
            coefficient /= 10;
            exponent += 1;
        }
        let number = Number { negative: sum < 0, coefficient, exponent };
        if number.digits() > MAX_DIGITS {
            return Err(TOO_LONG.into());
        }
        if number.first_power() > GREATEST {
            return Err(TOO_LARGE.into());
        }
        if number.first_power() < LEAST {
            return Err(TOO_SMALL.into());
        }
        Ok(number)
    }

    pub(super) fn negated(self) -> Number {
        Number { negative: !self.negative && self.coefficient != 0, ..self }
    }

    /// Bytes that count towards an item's size: about one for two digits, and one (Developer Guide, "Item sizes and
    /// formats").
    pub(super) fn size(self) -> usize {
        self.digits().div_ceil(2) as usize + 1 + usize::from(self.negative)
    }

    fn digits(self) -> u32 {
        self.coefficient.checked_ilog10().map_or(0, |n| n + 1)
    }

    /// The power of ten of the first digit.
    fn first_power(self) -> i64 {
        i64::from(self.exponent) + i64::from(self.digits()) - 1
    }
}

/// An exponent; one that no number can have is as good as any other such.
fn parse_power(text: &str) -> Option<i64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let magnitude = unsigned.trim_start_matches('0');
    let magnitude: i64 = if magnitude.is_empty() { 0 } else { magnitude.parse().unwrap_or(i64::MAX / 4) };
    let magnitude = magnitude.min(i64::MAX / 4);
    Some(if text.starts_with('-') { -magnitude } else { magnitude })
}

impl Ord for Number {
    fn cmp(&self, other: &Number) -> Ordering {
        let sign = |n: &Number| match (n.coefficient, n.negative) {
            (0, _) => 0i8,
            (_, true) => -1,
            (_, false) => 1,
        };
        let magnitude = |n: &Number| {
            // Digits from the first on, as if each had 38.
            (n.first_power(), n.coefficient * 10u128.pow(MAX_DIGITS - n.digits()))
        };
        match (sign(self), sign(other)) {
            (1, 1) => magnitude(self).cmp(&magnitude(other)),
            (-1, -1) => magnitude(other).cmp(&magnitude(self)),
            (a, b) => a.cmp(&b),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Number) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Plain digits, as DynamoDB gives numbers back: `1E2` is `100`.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.negative { "-" } else { "" };
        let digits = self.coefficient.to_string();
        if self.exponent >= 0 {
            return write!(f, "{sign}{digits}{}", "0".repeat(self.exponent.unsigned_abs().into()));
        }
        let after = usize::from(self.exponent.unsigned_abs());
        match digits.len().checked_sub(after).filter(|whole| *whole > 0) {
            Some(whole) => write!(f, "{sign}{}.{}", &digits[..whole], &digits[whole..]),
            None => write!(f, "{sign}0.{}{digits}", "0".repeat(after - digits.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn n(text: &str) -> Number {
        Number::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn numbers_come_back_in_plain_digits() {
        for (given, shown) in [
            ("0", "0"),
            ("-0.00", "0"),
            ("007", "7"),
            ("1.50", "1.5"),
            (".5", "0.5"),
            ("5.", "5"),
            ("+12e1", "120"),
            ("-1E-3", "-0.001"),
            ("12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
            ("0.00000000000000000000000000000000000001", "0.00000000000000000000000000000000000001"),
            ("100e-2", "1"),
        ] {
            assert_eq!(n(given).to_string(), shown, "{given}");
        }
        assert_eq!(n("1E125").to_string().len(), 126);
        assert_eq!(n("0e999999999999999999999"), n("0"));
    }

    #[test]
    fn what_is_no_number_is_refused_in_awss_words() {
        for bad in ["", "-", ".", "e5", "1e", "1e+", "0x1", "1 ", "١", "NaN", "1.2.3", "--1", "1e1.0"] {
            let error = Number::parse(bad).unwrap_err();
            assert!(error.starts_with("The parameter cannot be converted to a numeric value"), "{bad}: {error}");
        }
        for (bad, words) in [
            ("1E126", TOO_LARGE),
            ("-1e99999999999999999999", TOO_LARGE),
            ("1E-131", TOO_SMALL),
            ("1e-99999999999999999999", TOO_SMALL),
            ("123456789012345678901234567890123456789", TOO_LONG),
        ] {
            assert_eq!(Number::parse(bad).unwrap_err(), words, "{bad}");
        }
        assert!(Number::parse("9.9999999999999999999999999999999999999E+125").is_ok());
        assert!(Number::parse("1E-130").is_ok());
    }

    #[test]
    fn order_is_that_of_decimals() {
        let sorted = [
            "-9E125",
            "-10",
            "-9.5",
            "-9.49999999999999999999999999999999999",
            "-1E-130",
            "0",
            "1E-130",
            "0.1",
            "0.10000000000000000000000000000000000001",
            "2",
            "10",
            "9007199254740992",
            "9007199254740993",
            "1E125",
        ];
        for pair in sorted.windows(2) {
            assert!(n(pair[0]) < n(pair[1]), "{pair:?}");
        }
        assert_eq!(n("1.0").cmp(&n("1")), Ordering::Equal);
    }

    #[test]
    fn sums_are_exact_or_refused() {
        for (a, b, sum) in [
            ("0.1", "0.2", "0.3"),
            ("9007199254740993", "1", "9007199254740994"),
            ("5", "-5", "0"),
            ("-1.5", "0.5", "-1"),
            ("99999999999999999999999999999999999999", "1", "100000000000000000000000000000000000000"),
            ("1E125", "0", &n("1E125").to_string()),
        ] {
            assert_eq!(n(a).plus(n(b)).unwrap().to_string(), sum, "{a} + {b}");
        }
        assert_eq!(n("1E100").plus(n("1")), Err(TOO_LONG.into()));
        assert_eq!(n("9E125").plus(n("9E125")), Err(TOO_LARGE.into()));
        assert_eq!(n("3").plus(n("4").negated()).unwrap().to_string(), "-1");
    }

    proptest! {
        #[test]
        fn integers_behave_as_integers(a in any::<i64>(), b in any::<i64>()) {
            let (x, y) = (n(&a.to_string()), n(&b.to_string()));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x.plus(y).unwrap().to_string(), (i128::from(a) + i128::from(b)).to_string());
            prop_assert_eq!(n(&x.to_string()), x);
        }

        #[test]
        fn no_text_panics(text in ".{0,60}", digits in "[-+]?[0-9.]{0,50}([eE][-+]?[0-9]{0,25})?") {
            let _ = Number::parse(&text);
            if let Ok(number) = Number::parse(&digits) {
                prop_assert_eq!(n(&number.to_string()), number);
            }
        }
    }
}
