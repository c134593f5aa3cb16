//! Query parameters: a default when missing, 422 when wrong, the last one when repeated.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::answer::Refusal;

/// The decoded query of a request.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Returns a text; an empty one is present.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns a text that must be there.
    pub(super) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.text(name).ok_or_else(|| unprocessable(format!("`{name}` is required")))
    }

    /// Returns an integer.
    pub(super) fn int(&self, name: &str, default: i64) -> Result<i64, Refusal> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.trim().parse().map_err(|_| unprocessable(format!("`{name}` must be an integer, is `{text}`")))
    }

    /// Returns an integer that is 1 or more.
    pub(super) fn positive(&self, name: &str, default: i64) -> Result<i64, Refusal> {
        match self.int(name, default)? {
            number if number >= 1 => Ok(number),
            number => Err(unprocessable(format!("`{name}` must be 1 or more, is {number}"))),
        }
    }

    /// Returns a finite number.
    pub(super) fn float(&self, name: &str, default: f64) -> Result<f64, Refusal> {
        let Some(text) = self.text(name) else { return Ok(default) };
        match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            Ok(_) | Err(_) => Err(unprocessable(format!("`{name}` must be a number, is `{text}`"))),
        }
    }

    /// Returns a finite number that must be there.
    pub(super) fn required_float(&self, name: &str) -> Result<f64, Refusal> {
        self.required(name)?;
        self.float(name, 0.0)
    }

    /// Returns all parameters, in the order of the query.
    pub(super) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Params(form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

/// Refuses a parameter.
pub(super) fn unprocessable(reason: String) -> Refusal {
    Refusal::error(StatusCode::UNPROCESSABLE_ENTITY, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        Params(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    #[test]
    fn a_missing_parameter_has_its_default_and_an_empty_one_is_present() {
        let params = params("a=&b=x%20y&b=z+1");
        assert_eq!(params.text("a"), Some(""));
        assert_eq!(params.text("b"), Some("z 1"));
        assert_eq!(params.int("c", 7).ok(), Some(7));
        assert!(params.int("a", 7).is_err());
    }

    #[test]
    fn a_value_of_the_wrong_type_or_range_is_refused() {
        let params = params("i=1.5&f=nan&p=0&n=-3");
        assert!(params.int("i", 0).is_err());
        assert!(params.float("f", 0.0).is_err());
        assert!(params.positive("p", 1).is_err());
        assert_eq!(params.int("n", 0).ok(), Some(-3));
        assert!(params.required("none").is_err());
    }
}
