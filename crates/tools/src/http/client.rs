//! The way to the network: few clients, shared by all slots, each with its pool of connections.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, ClientBuilder};

use super::answer::Answer;
use super::failure::Failure;
use super::request::Request;
use super::{BODY_BYTES_MAX, REDIRECTS_MAX};

/// Idle connections kept for one host.
const IDLE_PER_HOST_MAX: usize = 8;
/// How long an idle connection is kept.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);

/// What a client does by itself; one for each combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Manner {
    verify_ssl: bool,
    redirects: Redirects,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Redirects {
    Follow,
    /// Not to another host: a header of our own would go with it. `Authorization` is taken off anyway.
    FollowAtHome,
    Ignore,
}

/// The clients that were needed so far.
#[derive(Debug, Default)]
pub(crate) struct Clients(Mutex<Vec<(Manner, Client)>>);

impl Clients {
    /// Sends a request and takes the whole answer. Dropping the future closes the connection.
    pub(super) async fn send(&self, request: Request) -> Result<Answer, Failure> {
        let Request { method, url, headers, body, follow_redirects, verify_ssl, guarded } = request;
        let redirects = match (follow_redirects, guarded) {
            (true, false) => Redirects::Follow,
            (true, true) => Redirects::FollowAtHome,
            (false, _) => Redirects::Ignore,
        };
        let client = self.client(Manner { verify_ssl, redirects })?;
        let mut request = client.request(method, url).headers(headers);
        if let Some(body) = body {
            request = request.body(body);
        }
        let began = Instant::now();
        let mut response = request.send().await?;
        let mut body = Vec::new();
        let announced = response.content_length().unwrap_or(0);
        if usize::try_from(announced).unwrap_or(usize::MAX) > BODY_BYTES_MAX {
            return Err(Failure::TooLarge);
        }
        while let Some(piece) = response.chunk().await? {
            if body.len() + piece.len() > BODY_BYTES_MAX {
                return Err(Failure::TooLarge);
            }
            body.extend_from_slice(&piece);
        }
        Ok(Answer::new(&response, body, began.elapsed()))
    }

    fn client(&self, manner: Manner) -> Result<Client, Failure> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = clients.iter().find(|(known, _)| *known == manner) {
            return Ok(client.clone());
        }
        let client = build(manner).map_err(Failure::NoClient)?;
        clients.push((manner, client.clone()));
        Ok(client)
    }
}

fn build(manner: Manner) -> reqwest::Result<Client> {
    // Whoever was first has the same one.
    rustls::crypto::ring::default_provider().install_default().ok();
    ClientBuilder::new()
        .user_agent(concat!("noetl/", env!("CARGO_PKG_VERSION")))
        .tls_danger_accept_invalid_certs(!manner.verify_ssl)
        // It would tell the next host the query of this one.
        .referer(false)
        .redirect(match manner.redirects {
            Redirects::Follow => Policy::limited(REDIRECTS_MAX),
            Redirects::FollowAtHome => Policy::custom(follow_at_home),
            Redirects::Ignore => Policy::none(),
        })
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .pool_idle_timeout(IDLE_TIME_MAX)
        .build()
}

fn follow_at_home(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let leaves = attempt.previous().last().is_none_or(|from| from.origin() != attempt.url().origin());
    if leaves {
        return attempt.error("the answer redirects to another host, which must not get the API key");
    }
    Policy::limited(REDIRECTS_MAX).redirect(attempt)
}
