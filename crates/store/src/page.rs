//! Pages of reads that return their results in parts.

use super::codec::Item;

/// Position of the next page. Valid only for the read that returned it.
#[derive(Clone, Debug, PartialEq)]
pub struct PageToken(Item);

/// One page of a read; may be empty and still have a next page.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Items that the store examined, including items of other events.
    pub examined: u64,
    pub next: Option<PageToken>,
}

impl<T> Page<T> {
    /// A page with the scanned count and the last evaluated key of the response.
    pub(super) fn new(items: Vec<T>, examined: i32, last_key: Option<Item>) -> Self {
        Self {
            items,
            examined: u64::try_from(examined).unwrap_or(0),
            next: last_key.filter(|key| !key.is_empty()).map(PageToken),
        }
    }
}

/// Start key of a request for the page at `from`.
pub(super) fn start_key(from: Option<&PageToken>) -> Option<Item> {
    from.map(|PageToken(key)| key.clone())
}
