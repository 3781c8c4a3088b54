//! Addresses of servers, as users give them to commands.

use http::Uri;

/// Parses an address that a user gives: `host:8081`, `http://host:8081` or `https://host:8081`; `8081` alone is an error.
///
/// # Errors
/// What is wrong with the address, and what would be right.
pub(super) fn parse_address(text: &str) -> Result<Uri, String> {
    let wanted =
        "want host:port, http://host:port or https://host:port, for example 127.0.0.1:8081";
    let text = match text.split_once("://") {
        None => format!("http://{text}"),
        Some(("http" | "https", _)) => text.to_owned(),
        Some((scheme, _)) => {
            return Err(format!("the scheme {scheme:?} is not supported; {wanted}"));
        }
    };
    let url: Uri = text.parse().map_err(|why| format!("{why}; {wanted}"))?;
    let has_user = url.authority().is_some_and(|authority| authority.as_str().contains('@'));
    if url.host().is_none_or(str::is_empty) || url.port_u16().is_none() || has_user {
        return Err(wanted.to_owned());
    }
    Ok(url)
}

/// The URL without the slash that the parser adds.
pub(super) fn shown(server: &Uri) -> String {
    server.to_string().trim_end_matches('/').to_owned()
}
