//! Currencies of ISO 4217: which codes there are, and how many decimals their amounts have.

/// The codes of currencies in use, ascending. Without precious metals, funds and test codes.
#[rustfmt::skip]
const CODES: [&str; 158] = [
    "AED", "AFN", "ALL", "AMD", "AOA", "ARS", "AUD", "AWG", "AZN", "BAM", "BBD", "BDT", "BHD",
    "BIF", "BMD", "BND", "BOB", "BRL", "BSD", "BTN", "BWP", "BYN", "BZD", "CAD", "CDF", "CHF",
    "CLF", "CLP", "CNY", "COP", "CRC", "CUP", "CVE", "CZK", "DJF", "DKK", "DOP", "DZD", "EGP",
    "ERN", "ETB", "EUR", "FJD", "FKP", "GBP", "GEL", "GHS", "GIP", "GMD", "GNF", "GTQ", "GYD",
    "HKD", "HNL", "HTG", "HUF", "IDR", "ILS", "INR", "IQD", "IRR", "ISK", "JMD", "JOD", "JPY",
    "KES", "KGS", "KHR", "KMF", "KPW", "KRW", "KWD", "KYD", "KZT", "LAK", "LBP", "LKR", "LRD",
    "LSL", "LYD", "MAD", "MDL", "MGA", "MKD", "MMK", "MNT", "MOP", "MRU", "MUR", "MVR", "MWK",
    "MXN", "MYR", "MZN", "NAD", "NGN", "NIO", "NOK", "NPR", "NZD", "OMR", "PAB", "PEN", "PGK",
    "PHP", "PKR", "PLN", "PYG", "QAR", "RON", "RSD", "RUB", "RWF", "SAR", "SBD", "SCR", "SDG",
    "SEK", "SGD", "SHP", "SLE", "SOS", "SRD", "SSP", "STN", "SVC", "SYP", "SZL", "THB", "TJS",
    "TMT", "TND", "TOP", "TRY", "TTD", "TWD", "TZS", "UAH", "UGX", "USD", "UYI", "UYU", "UYW",
    "UZS", "VED", "VES", "VND", "VUV", "WST", "XAF", "XCD", "XCG", "XOF", "XPF", "YER", "ZAR",
    "ZMW", "ZWG",
];

/// Currencies that do not have two decimals.
const DECIMALS: [(&[&str], usize); 3] = [
    (
        &[
            "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI",
            "VND", "VUV", "XAF", "XOF", "XPF",
        ],
        0,
    ),
    (&["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"], 3),
    (&["CLF", "UYW"], 4),
];

/// What a text that [`is_currency`] rejects should be.
pub(crate) const WANTED: &str = "an ISO 4217 code, such as KRW, JPY or USD";

/// Whether `text` is the code of a currency, in capital letters.
pub(crate) fn is_currency(text: &str) -> bool {
    CODES.binary_search(&text).is_ok()
}

/// Number of decimals of amounts of `currency`; two for a currency that is not known.
pub(crate) fn decimals(currency: &str) -> usize {
    let known = DECIMALS.iter().find(|(names, _)| names.contains(&currency));
    known.map_or(2, |(_, decimals)| *decimals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_ascending_and_only_they_are_currencies() {
        assert!(CODES.is_sorted());
        let others = DECIMALS.iter().flat_map(|(names, _)| names.iter());
        assert!(others.copied().all(is_currency));
        for text in ["KRW", "USD", "JPY", "EUR", "KWD"] {
            assert!(is_currency(text), "{text}");
        }
        for text in ["WON", "XQZ", "RMB", "krw", "KR", "KRWX", "", "XTS"] {
            assert!(!is_currency(text), "{text}");
        }
    }
}
