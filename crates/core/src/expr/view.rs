//! What an expression has reached, and what is one look-up further: the attribute rules of results.
//!
//! A look-up tries, in this order: the data's own key; what is known beside the data of a result (`.status`,
//! `.error`, `._ref`, …); the keys of an HTTP answer's JSON body; the data under another name (`.data`, `.result`,
//! `.results`). Whatever is missing is undefined, and undefined has every attribute, undefined again. Keys are never
//! methods: `start.items` is the key `items` or undefined.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

use super::path::Segment;
use super::{Binding, Library};
use crate::result::{Bound, StoredRef};

/// A value that an expression has reached.
#[derive(Debug, Clone)]
pub(super) enum View {
    /// Nothing.
    Undefined,
    /// A stored result that is not at hand; the library has noted it.
    Needed,
    /// Plain JSON.
    Data(Place),
    /// A result.
    Result(Box<ResultView>),
    /// `.results` of a pipeline: its labels and their data.
    Labels(Box<ResultView>),
    /// Further names.
    Group(Arc<IndexMap<Arc<str>, Binding>>, Arc<Library>),
    /// A text that is known beside the data.
    Text(Arc<str>),
}

/// A place inside a shared JSON value; it exists.
#[derive(Debug, Clone)]
pub(super) struct Place {
    root: Root,
    path: Arc<[Segment]>,
    /// How many segments of `path` the root already stands for.
    from: usize,
}

#[derive(Debug, Clone)]
enum Root {
    Whole(Arc<Value>),
    Summary(Arc<StoredRef>),
}

/// A result and what is known beside its data.
#[derive(Debug, Clone)]
pub(super) struct ResultView {
    place: Place,
    /// The place shows a summary only: what is not in it may be in the stored data.
    partial: bool,
    stored: Option<Arc<StoredRef>>,
    status: Option<&'static str>,
    error: Option<Arc<Value>>,
    labels: Option<Arc<[Arc<str>]>>,
    library: Arc<Library>,
}

impl View {
    /// Returns what a binding shows.
    pub(super) fn of(binding: Binding, library: &Arc<Library>) -> View {
        match binding {
            Binding::Data(data) => View::Data(Place::whole(data)),
            Binding::Group(group) => View::Group(group, Arc::clone(library)),
            Binding::Result(result) => {
                let (place, partial, stored) = match result.bound {
                    Bound::Inline(data) => (Place::whole(data), false, None),
                    Bound::Stored(stored) => match library.get(&stored.reference) {
                        Some(data) => (Place::whole(data), false, Some(stored)),
                        None => (Place::summary(&stored), true, Some(stored)),
                    },
                };
                let (status, error, labels) = (result.status, result.error, result.labels);
                let library = Arc::clone(library);
                View::Result(Box::new(ResultView { place, partial, stored, status, error, labels, library }))
            }
        }
    }

    /// Returns what is at the end of `segments`.
    pub(super) fn follow(self, segments: &Arc<[Segment]>) -> View {
        let mut view = self;
        for (at, segment) in segments.iter().enumerate() {
            view = match (view, segment) {
                // Plain data stays plain: the rest is one walk.
                (View::Data(place), _) => return place.descend(segments, at),
                (view, Segment::Key(key)) => view.attribute(key),
                (view, Segment::Index(index)) => view.element(*index),
            };
        }
        view
    }

    /// Returns what `.key` is.
    pub(super) fn attribute(&self, key: &str) -> View {
        match self {
            View::Undefined | View::Text(_) => View::Undefined,
            View::Needed => View::Needed,
            View::Data(place) => match child(place.value(), key) {
                Some(_) => View::Data(place.child(Segment::Key(Arc::from(key)))),
                None => View::Undefined,
            },
            View::Result(result) => result.attribute(key),
            View::Labels(result) => match result.has_label(key) {
                true => result.attribute(key),
                false => View::Undefined,
            },
            View::Group(group, library) => match group.get(key) {
                Some(binding) => View::of(binding.clone(), library),
                None => View::Undefined,
            },
        }
    }

    /// Returns what `[index]` is.
    pub(super) fn element(&self, index: i64) -> View {
        let place = match self {
            View::Data(place) => place,
            View::Result(result) if result.partial => return result.need(),
            View::Result(result) => &result.place,
            View::Needed => return View::Needed,
            View::Text(text) => return nth_char(text, index),
            View::Undefined | View::Labels(_) | View::Group(..) => return View::Undefined,
        };
        match place.value() {
            Value::Array(items) if position(items.len(), index).is_some() => {
                View::Data(place.child(Segment::Index(index)))
            }
            Value::String(text) => nth_char(text, index),
            Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => View::Undefined,
        }
    }

    /// Returns the data when all of it is at hand as JSON; notes the need when it is not.
    pub(super) fn data(&self) -> Data<'_> {
        match self {
            View::Undefined => Data::Undefined,
            View::Needed => Data::Needed,
            View::Data(place) => Data::Json(place.value()),
            View::Result(result) if result.partial => {
                result.need();
                Data::Needed
            }
            View::Result(result) => Data::Json(result.place.value()),
            View::Labels(result) => Data::Entries(
                result
                    .labels
                    .iter()
                    .flat_map(|labels| labels.iter())
                    .map(|label| (Arc::clone(label), result.attribute(label)))
                    .filter(|(_, view)| !matches!(view, View::Undefined))
                    .collect(),
            ),
            View::Group(group, library) => Data::Entries(
                group.iter().map(|(key, binding)| (Arc::clone(key), View::of(binding.clone(), library))).collect(),
            ),
            View::Text(text) => Data::Text(text),
        }
    }

    /// Returns whether a look-up below this view can be answered without all of the data: a summary is an object.
    pub(super) fn is_summary_of_object(&self) -> bool {
        matches!(self, View::Result(result) if result.partial && result.place.value().is_object())
    }
}

/// The data of a view.
#[derive(Debug)]
pub(super) enum Data<'a> {
    /// Nothing.
    Undefined,
    /// Not at hand, and noted.
    Needed,
    /// JSON.
    Json(&'a Value),
    /// A map of views.
    Entries(Vec<(Arc<str>, View)>),
    /// Text.
    Text(&'a str),
}

impl ResultView {
    fn attribute(&self, key: &str) -> View {
        let value = self.place.value();
        if value.get(key).is_some() {
            let place = self.place.child(Segment::Key(Arc::from(key)));
            return match self.has_label(key) {
                true => View::Result(Box::new(self.labelled(place))),
                false => View::Data(place),
            };
        }
        if let Some(stored) = &self.stored {
            match key {
                "_ref" | "_uri" => return View::Text(Arc::from(stored.reference.as_str())),
                "_store" => return View::Text(Arc::from(stored.store.as_str())),
                "_preview" => return View::Data(Place::summary(stored)),
                _ => {}
            }
        }
        if self.partial {
            // Even `.data` and `.status` may be keys of the stored data.
            return self.need();
        }
        match (key, self.status, &self.error) {
            ("status", Some(status), _) => return View::Text(Arc::from(status)),
            ("error", _, Some(error)) => return View::Data(Place::whole(Arc::clone(error))),
            // A key `error` in the body of an answer does not make the step a failed one.
            ("error", _, None) => return View::Undefined,
            _ => {}
        }
        if http_body(value).is_some_and(|body| body.get(key).is_some()) {
            return View::Data(self.place.child(Segment::Key(Arc::from(key))));
        }
        match key {
            "data" | "result" => View::Result(Box::new(self.clone())),
            "results" if self.labels.is_some() => View::Labels(Box::new(self.clone())),
            _ => View::Undefined,
        }
    }

    fn has_label(&self, key: &str) -> bool {
        self.labels.iter().flat_map(|labels| labels.iter()).any(|label| **label == *key)
    }

    /// Returns one task's part of a pipeline's result.
    fn labelled(&self, place: Place) -> ResultView {
        let library = Arc::clone(&self.library);
        ResultView { place, partial: false, stored: None, status: None, error: None, labels: None, library }
    }

    fn need(&self) -> View {
        if let Some(stored) = &self.stored {
            self.library.get_or_note(&stored.reference);
        }
        View::Needed
    }
}

impl Place {
    fn whole(data: Arc<Value>) -> Place {
        Place { root: Root::Whole(data), path: Arc::from([]), from: 0 }
    }

    fn summary(stored: &Arc<StoredRef>) -> Place {
        Place { root: Root::Summary(Arc::clone(stored)), path: Arc::from([]), from: 0 }
    }

    /// Returns the value at this place.
    pub(super) fn value(&self) -> &Value {
        let root = match &self.root {
            Root::Whole(data) => data,
            Root::Summary(stored) => &stored.summary,
        };
        // A place is only made after its path has been walked once.
        walk(root, &self.path[self.from..]).unwrap_or(&Value::Null)
    }

    /// Returns the place one segment below; the caller knows that it exists.
    fn child(&self, segment: Segment) -> Place {
        let path = self.path[self.from..].iter().cloned().chain([segment]).collect();
        Place { root: self.root.clone(), path, from: 0 }
    }

    /// Returns what is at the end of `segments[at..]`.
    fn descend(self, segments: &Arc<[Segment]>, at: usize) -> View {
        let start = self.value();
        match walk(start, &segments[at..]) {
            Some(_) if self.path.len() == self.from => {
                View::Data(Place { root: self.root, path: Arc::clone(segments), from: at })
            }
            Some(_) => {
                let path = self.path[self.from..].iter().chain(&segments[at..]).cloned().collect();
                View::Data(Place { root: self.root, path, from: 0 })
            }
            // A character of a string is no part of the JSON value.
            None if segments[at..].iter().any(|segment| matches!(segment, Segment::Index(_))) => {
                segments[at..].iter().fold(View::Data(self), |view, segment| match segment {
                    Segment::Key(key) => view.attribute(key),
                    Segment::Index(index) => view.element(*index),
                })
            }
            None => View::Undefined,
        }
    }
}

fn walk<'v>(from: &'v Value, segments: &[Segment]) -> Option<&'v Value> {
    segments.iter().try_fold(from, |value, segment| match segment {
        Segment::Key(key) => child(value, key),
        Segment::Index(index) => {
            let items = value.as_array()?;
            items.get(position(items.len(), *index)?)
        }
    })
}

/// Returns the value's own key, else the key of its body when it is an HTTP answer.
fn child<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    let map = value.as_object()?;
    map.get(key).or_else(|| http_body(value)?.get(key))
}

/// Returns the JSON object that an HTTP answer carries.
fn http_body(value: &Value) -> Option<&serde_json::Map<String, Value>> {
    let map = value.as_object()?;
    let body = map.get("data")?.as_object()?;
    ["status_code", "headers", "body"].iter().all(|key| map.contains_key(*key)).then_some(body)
}

fn position(len: usize, index: i64) -> Option<usize> {
    let at = match usize::try_from(index) {
        Ok(at) => at,
        Err(_) => len.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?,
    };
    (at < len).then_some(at)
}

fn nth_char(text: &str, index: i64) -> View {
    match position(text.chars().count(), index).and_then(|at| text.chars().nth(at)) {
        Some(character) => View::Text(Arc::from(character.to_string())),
        None => View::Undefined,
    }
}
