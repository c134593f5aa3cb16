//! Events as rows of the table `event`, and back.
