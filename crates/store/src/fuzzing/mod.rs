//! Fuzz targets of the store client: answers and items of a store, and transactions to it. Compiled for tests, which replay
//! the corpus, and for the programs in `tests/fuzz`.
//!
//! | file | content |
//! |---|---|
//! | `answers.rs` | the body of an answer, as the direct client reads it |
//! | `items.rs` | items of any program, as the codec reads them |
//! | `transactions.rs` | transactions as the codec writes them, read back |

mod answers;
mod items;
mod transactions;

pub use answers::store_answers;
pub use items::store_items;

#[cfg(test)]
mod tests {
    #[test]
    fn corpus_of_answers_is_read_or_reported() {
        inventory_testkit::corpus::replay("store_answers", super::store_answers);
    }

    #[test]
    fn corpus_of_items_is_read_as_it_was_written_or_reported() {
        inventory_testkit::corpus::replay("store_items", super::store_items);
    }
}
