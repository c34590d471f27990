//! One endpoint as a value: its method, path, access, handler, and what the documentation says of it.
//! An endpoint without an access does not compile. Nothing here runs a request.

use crate::call::Call;
use crate::problem::Problem;
use crate::reply::Reply;
use atoll_node::Permission;
use atoll_storage::{Field, Kind};
use axum::http::Method;
use std::future::Future;
use std::pin::Pin;

/// Who may call an endpoint. Checked before the handler runs and before the body is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Anybody, signed in or not.
    Public,
    /// Anybody who is signed in. With an API key it only reads.
    User,
    /// Whoever has the permission.
    Can(Permission),
    /// A signed-in user; the domain then asks for the author of the record, or for this permission.
    Author(Permission),
}

pub type Answer = Result<Reply, Problem>;
pub type Handler = Box<dyn Fn(Call) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// What an endpoint's JSON holds.
#[derive(Clone, Copy)]
pub enum Shape {
    /// The shape of a kind: what of it may be written, or what of it is shown.
    Of(&'static Kind),
    /// Fields that belong to no kind, such as those of a login.
    Fields(&'static [Field]),
}

pub struct Route {
    pub method: Method,
    /// With parameters in braces: `/api/v1/posts/{id}`.
    pub path: &'static str,
    pub access: Access,
    pub handler: Handler,
    pub takes: Option<Shape>,
    /// What the handler reads from the body beside the fields of a kind.
    pub also: &'static [Field],
    pub gives: Option<Shape>,
    /// The answer is a page of `gives`.
    pub is_list: bool,
    /// The answer is `gives` as it stands, without `data` around it.
    pub is_plain: bool,
    /// Names of query parameters besides those that a list or a record always takes.
    pub query: &'static [&'static str],
    pub doc: &'static str,
    /// The largest body it takes; what the options say if it names none.
    pub body_limit_bytes: Option<usize>,
    /// The handler reads the body as it comes: no limit, no timeout of the whole, no idempotency key here.
    pub is_upload: bool,
    /// Guards a secret: a smaller rate limit, and its answers are never kept.
    pub is_strict: bool,
    /// For people: parameters that it does not name, which others put behind links, are left alone.
    pub is_page: bool,
    /// Belongs to no tenant: no authentication, no rate limit, no ETag.
    pub is_bare: bool,
}

impl Route {
    fn new<F, A>(method: Method, path: &'static str, access: Access, handler: F) -> Self
    where
        F: Fn(Call) -> A + Send + Sync + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        Self {
            method,
            path,
            access,
            handler: Box::new(move |call| Box::pin(handler(call))),
            takes: None,
            also: &[],
            gives: None,
            is_list: false,
            is_plain: false,
            query: &[],
            doc: "",
            body_limit_bytes: None,
            is_upload: false,
            is_strict: false,
            is_page: false,
            is_bare: false,
        }
    }

    /// Answers a page of this kind, and so takes `limit`, `cursor`, `sort`, `fields`, `expand` and filters.
    #[must_use]
    pub fn lists(mut self, kind: &'static Kind) -> Self {
        self.gives = Some(Shape::Of(kind));
        self.is_list = true;
        self
    }

    /// Answers one record of this kind, and so takes `fields` and `expand`.
    #[must_use]
    pub fn gives(mut self, kind: &'static Kind) -> Self {
        self.gives = Some(Shape::Of(kind));
        self
    }

    /// Answers an object of these fields under `data`; after [`Route::pages`], a page of them.
    #[must_use]
    pub fn gives_fields(mut self, fields: &'static [Field]) -> Self {
        self.gives = Some(Shape::Fields(fields));
        self
    }

    /// The answer is as others specify it, without `data` around it.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.is_plain = true;
        self
    }

    /// Answers a page of what is not a kind: name the parameters it takes (`limit`, `cursor`) by [`Route::query`].
    #[must_use]
    pub fn pages(mut self) -> Self {
        self.is_list = true;
        self
    }

    /// Takes the writable fields of this kind: a draft with POST; else a patch, in which what is absent stays.
    #[must_use]
    pub fn takes(mut self, kind: &'static Kind) -> Self {
        self.takes = Some(Shape::Of(kind));
        self
    }

    #[must_use]
    pub fn takes_fields(mut self, fields: &'static [Field]) -> Self {
        self.takes = Some(Shape::Fields(fields));
        self
    }

    /// Fields that stand in the body beside those of the kind; the handler takes them out.
    #[must_use]
    pub fn also(mut self, fields: &'static [Field]) -> Self {
        self.also = fields;
        self
    }

    /// Query parameters of its own. A parameter that is named nowhere is refused before the handler runs.
    #[must_use]
    pub fn query(mut self, names: &'static [&'static str]) -> Self {
        self.query = names;
        self
    }

    /// One sentence, or a sentence and more after a full stop.
    #[must_use]
    pub fn doc(mut self, doc: &'static str) -> Self {
        self.doc = doc;
        self
    }

    #[must_use]
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit_bytes = Some(bytes);
        self
    }

    /// Takes a file of any size, which the handler reads piece by piece and bounds: see `upload`.
    #[must_use]
    pub fn uploads(mut self) -> Self {
        self.is_upload = true;
        self
    }

    /// For sign-in and whatever else guesses could be tried on: a smaller rate limit an address, and the
    /// answers, which hold tokens, are never kept for repeats.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.is_strict = true;
        self
    }

    /// A page of the site, or what belongs to one.
    #[must_use]
    pub(crate) fn page(mut self) -> Self {
        self.is_page = true;
        self
    }

    /// For probes and for pages that hold no data.
    #[must_use]
    pub(crate) fn bare(mut self) -> Self {
        self.is_bare = true;
        self
    }

    pub(crate) fn kind(&self) -> Option<&'static Kind> {
        match self.gives {
            Some(Shape::Of(kind)) => Some(kind),
            _ => None,
        }
    }

    /// The names in braces, in order.
    pub(crate) fn path_names(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }
}

macro_rules! verbs {
    ($($verb:ident $method:ident),*) => { $(
        pub fn $verb<F, A>(path: &'static str, access: Access, handler: F) -> Route
        where
            F: Fn(Call) -> A + Send + Sync + 'static,
            A: Future<Output = Answer> + Send + 'static,
        {
            Route::new(Method::$method, path, access, handler)
        }
    )* };
}

verbs!(get GET, post POST, put PUT, patch PATCH, delete DELETE);
