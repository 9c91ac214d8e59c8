//! Numbers as limits are written: digits, and perhaps a point. No sign, no exponent, no space, no `NaN`.

use super::InvalidLimit;

/// Decimal digits only; what is too large is the largest.
pub fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

/// `whole.decimals` in thousandths: one to three decimals.
///
/// # Errors
/// [`InvalidLimit`], saying `expected`.
pub fn thousandths(whole: &str, decimals: &str, expected: &'static str) -> Result<u64, InvalidLimit> {
    let invalid = |reason| InvalidLimit { reason, expected };
    if decimals.is_empty() || decimals.len() > 3 {
        return Err(invalid("not one to three decimals"));
    }
    let whole = digits(whole).ok_or(invalid("not a number"))?;
    let decimals = digits(decimals).ok_or(invalid("not a number"))? * 10_u64.pow(3 - decimals.len() as u32);
    Ok(whole.saturating_mul(1000).saturating_add(decimals))
}

/// Digits with at most one point among them (`0.85`, `.5`, `1`).
pub fn decimal(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| plain)
}

/// The digits in front, and what follows them.
pub fn with_suffix(text: &str) -> (&str, &str) {
    let digits_end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(digits_end)
}

/// A number that was written with a point, as text with a point: `2.0` cores are not `2` millicores.
pub fn written(number: f64) -> String {
    if number.fract() == 0.0 { format!("{number:.1}") } else { number.to_string() }
}
