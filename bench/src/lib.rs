//! Load client, peers and reports.
