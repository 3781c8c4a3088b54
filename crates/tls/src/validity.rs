//! The period in which a certificate is valid (RFC 5280, section 4.1.2.5). Nothing else in the tree exposes it.
//!
//! Reads certificates of the operator's own files; verification of certificates is done by rustls.

/// Seconds since 1970, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The explicit tag of the version, which certificates of version 1 do not have.
const VERSION: u8 = 0xa0;

impl Validity {
    /// `None` if the bytes are no certificate.
    pub(crate) fn of(der: &[u8]) -> Option<Self> {
        let (certificate, _) = value(der, SEQUENCE)?;
        let (mut fields, _) = value(certificate, SEQUENCE)?;
        if fields.first() == Some(&VERSION) {
            fields = element(fields)?.2;
        }
        // Serial number, signature algorithm, issuer.
        for _ in 0..3 {
            fields = element(fields)?.2;
        }
        let (validity, _) = value(fields, SEQUENCE)?;
        let (tag, not_before, rest) = element(validity)?;
        let not_before = time(tag, not_before)?;
        let (tag, not_after, _) = element(rest)?;
        Some(Self { not_before, not_after: time(tag, not_after)? })
    }
}

/// The value of an element with this tag, and what follows it.
fn value(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, value, rest) = element(der)?;
    (tag == wanted).then_some((value, rest))
}

/// Tag, value and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = digits.iter().fold(0_u64, |sum, digit| sum << 8 | u64::from(*digit));
            (usize::try_from(length).ok()?, rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((*tag, value, rest))
}

/// YYMMDDHHMMSSZ or YYYYMMDDHHMMSSZ.
fn time(tag: u8, text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b"Z")?;
    let number = |from: usize, count: usize| -> Option<u64> {
        let digits = digits.get(from..from + count)?;
        let is_number = digits.iter().all(u8::is_ascii_digit);
        is_number.then(|| digits.iter().fold(0, |sum, d| sum * 10 + u64::from(d - b'0')))
    };
    let (year, at) = match tag {
        // Two digits: 1950 to 2049.
        UTC_TIME => {
            (number(0, 2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2)
        }
        GENERALIZED_TIME => (number(0, 4)?, 4),
        _ => return None,
    };
    let (month, day) = (number(at, 2)?, number(at + 2, 2)?);
    let (hour, minute, second) = (number(at + 4, 2)?, number(at + 6, 2)?, number(at + 8, 2)?);
    let is_date = (1970..=9999).contains(&year) && (1..=12).contains(&month) && day >= 1;
    if digits.len() != at + 10 || !is_date || day > 31 || hour > 23 || minute > 59 || second > 60 {
        // Before 1970: valid since ever.
        return (digits.len() == at + 10 && year < 1970).then_some(0);
    }
    Some(days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Gregorian days; years of a count that begin in March, so that the leap day is the last one.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
    // Days from 0000-03-01 to 1970-01-01.
    days - 719_468
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use inventory_testkit::certificates::{Authority, CertificateSpec, CertificateUsage};

    fn certificate() -> Vec<u8> {
        let spec = CertificateSpec {
            names: &["a.test"],
            years: (2020, 2031),
            usage: CertificateUsage::Server,
        };
        Authority::new("ca").issue(spec).der
    }

    #[test]
    fn times_of_both_kinds_are_seconds_since_1970() {
        assert_eq!(time(UTC_TIME, b"700101000000Z"), Some(0));
        assert_eq!(time(UTC_TIME, b"261130170730Z"), Some(1_796_058_450));
        assert_eq!(time(GENERALIZED_TIME, b"20240229235959Z"), Some(1_709_251_199));
        assert_eq!(time(GENERALIZED_TIME, b"99991231235959Z"), Some(253_402_300_799));
        assert_eq!(time(UTC_TIME, b"500101000000Z"), Some(0), "before 1970");
        for wrong in [&b"20241301000000Z"[..], b"20240100000000Z", b"20240101000000", b"", b"Z"] {
            assert_eq!(time(GENERALIZED_TIME, wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn validity_is_that_of_the_certificate() {
        let validity = Validity::of(&certificate()).unwrap();
        assert_eq!(validity.not_before, time(UTC_TIME, b"200101000000Z").unwrap());
        assert_eq!(validity.not_after, time(UTC_TIME, b"310101000000Z").unwrap());
    }

    #[test]
    fn damaged_certificates_have_no_validity_and_do_not_panic() {
        let der = certificate();
        for end in 0..der.len() {
            let _ = Validity::of(&der[..end]);
        }
        for at in 0..der.len().min(200) {
            for bits in [0x01, 0x80, 0xff] {
                let mut damaged = der.clone();
                damaged[at] ^= bits;
                let _ = Validity::of(&damaged);
            }
        }
        assert_eq!(Validity::of(&[]), None);
        assert_eq!(Validity::of(&[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
