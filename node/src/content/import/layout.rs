//! What a Markdown file says of a post: by its front matter, and by where it lies. Knows the layouts of Jekyll
//! (`_posts/2024-01-31-name.md`, `_drafts`) and Hugo (`content/`, page bundles), and which address each gave a post.

use super::super::post::{EXCERPT, TITLE};
use super::super::slug::slug_of;
use super::date;
use super::entry::{Entry, Place, fitting, hash_of};
use super::front_matter::{self, FrontMatter};
use crate::identity::author::Author;
use atoll_storage::tx::Changes;
use std::path::Path;

pub(super) fn is_markdown(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ext| ext.eq_ignore_ascii_case("md") || ext.eq_ignore_ascii_case("markdown"))
}

/// `origin`: its path within the folder or archive.
pub(super) fn entry_of(origin: &str, text: &str) -> Entry {
    let (head, body) = front_matter::split(text);
    let lies = Lies::of(origin);
    let title = head
        .text(&["title"])
        .or_else(|| heading(body))
        .map_or_else(|| name_of(origin, lies.name), str::to_owned);
    let mut changes = Changes::new();
    if let Some(excerpt) = head.text(&["excerpt", "summary", "description"]) {
        changes.put(&EXCERPT, fitting(&EXCERPT, excerpt));
    }
    let several = |keys: &[&str]| -> Vec<String> {
        match head.list(keys) {
            [one] => one.split(',').map(|part| part.trim().to_owned()).collect(),
            many => many.to_vec(),
        }
    };
    let mut categories = several(&["category", "categories"]);
    let aliases = addresses(&head, &lies, &categories);
    let category = if categories.is_empty() { None } else { Some(categories.remove(0)) };
    // A post has one category: what else it lay under, it carries as tags.
    let tags = several(&["tags", "tag", "keywords"]).into_iter().chain(categories);
    let slug = head.text(&["slug"]).or(lies.slug());
    Entry {
        origin: origin.to_owned(),
        hash: hash_of(&[text.as_bytes()]),
        title: fitting(&TITLE, &title),
        body: body.to_owned(),
        changes,
        slug: slug.map(str::to_owned),
        may_rename: head.text(&["slug"]).is_none(),
        category: category.map(Place::named),
        tags: tags.map(Place::named).collect(),
        author: author_of(&head),
        is_draft: head.flag("draft") || head.text(&["published"]) == Some("false") || lies.is_draft,
        published_ms: head
            .text(&["date", "published_at", "pubdate"])
            .or(lies.date)
            .and_then(date::parse),
        aliases,
        ..Entry::default()
    }
}

/// What the place of a file says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lies<'a> {
    /// Of the file, without its extension and its date.
    name: &'a str,
    /// `2024-01-31`, at the head of the file's name.
    date: Option<&'a str>,
    is_draft: bool,
    /// Jekyll names posts by their files.
    is_jekyll: bool,
    /// The path that Hugo gives it: below `content`, without the extension, and without the file of a bundle.
    hugo: Option<&'a str>,
}

impl<'a> Lies<'a> {
    fn of(origin: &'a str) -> Self {
        let (folders, file) = origin.rsplit_once('/').unwrap_or(("", origin));
        let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
        let (date, name) = dated(stem);
        let is_in = |wanted: &str| folders.split('/').any(|folder| folder == wanted);
        let below = match folders.split_once("content/") {
            Some((before, rest)) if before.is_empty() || before.ends_with('/') => Some(rest.len()),
            _ if folders == "content" || folders.ends_with("/content") => Some(0),
            _ => None,
        };
        let hugo = below.map(|length| {
            let start = if length == 0 { folders.len() + 1 } else { folders.len() - length };
            let is_bundle = matches!(stem, "index" | "_index");
            let end = if is_bundle { folders.len() } else { folders.len() + 1 + stem.len() };
            origin.get(start..end).unwrap_or_default()
        });
        Self {
            name,
            date,
            is_draft: is_in("_drafts"),
            is_jekyll: is_in("_posts") || is_in("_drafts"),
            hugo: hugo.filter(|path| !path.is_empty()),
        }
    }

    /// What stood in its address.
    fn slug(&self) -> Option<&'a str> {
        let of_hugo = self.hugo.and_then(|path| path.rsplit('/').next());
        of_hugo.or(Some(self.name).filter(|_| self.is_jekyll)).filter(|slug| !slug.is_empty())
    }
}

/// A date at the head of a name, and the rest of it.
fn dated(stem: &str) -> (Option<&str>, &str) {
    match stem.split_at_checked(11) {
        Some((head, rest)) if head.ends_with('-') && !rest.is_empty() => {
            let date = &head[..10];
            if date::parse(date).is_some() { (Some(date), rest) } else { (None, stem) }
        }
        _ => (None, stem),
    }
}

/// The addresses that it had: those written down, and the one that its place gave it.
fn addresses(head: &FrontMatter, lies: &Lies<'_>, categories: &[String]) -> Vec<String> {
    let written = ["aliases", "alias", "redirect_from", "permalink", "url"];
    let mut all: Vec<String> = written.iter().flat_map(|key| head.list(&[*key]).to_vec()).collect();
    // A pattern is no address.
    all.retain(|address| !address.contains(':') || address.contains("://"));
    let has_own = !head.list(&["permalink", "url"]).is_empty();
    match (lies.hugo, lies.date) {
        _ if has_own => {}
        (Some(path), _) => all.push(format!("/{path}/")),
        (None, Some(date)) if lies.is_jekyll => {
            let folders: String =
                categories.iter().map(|name| format!("/{}", slug_of(name))).collect();
            all.push(format!("{folders}/{}/{}.html", date.replace('-', "/"), lies.name));
        }
        _ => {}
    }
    all
}

/// By his username, or his e-mail address if that is what stands there; nobody gets an account by a name.
fn author_of(head: &FrontMatter) -> Option<Author> {
    let name = head.text(&["author", "authors"])?;
    let (email, username) = if name.contains('@') { (name, "") } else { ("", name) };
    Some(Author { email: email.to_owned(), username: username.to_owned(), name: String::new() })
}

/// The text of the first heading of the first level, if one stands before any text.
fn heading(body: &str) -> Option<&str> {
    let first =
        body.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("<!--"))?;
    let title = first.strip_prefix("# ")?.trim().trim_end_matches('#').trim_end();
    Some(title).filter(|title| !title.is_empty())
}

/// `guide/first-steps.md` is called `first steps`, and `guide/index.md` `guide`.
fn name_of(origin: &str, name: &str) -> String {
    let path = Path::new(origin);
    let stem = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let is_index =
        |name: &String| matches!(name.to_ascii_lowercase().as_str(), "index" | "readme" | "_index");
    let name = name.to_owned();
    let name = if is_index(&name) { path.parent().and_then(stem).unwrap_or(name) } else { name };
    let words = name.replace(['-', '_'], " ");
    if words.trim().is_empty() { origin.to_owned() } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_post_is_called_by_its_front_matter_its_heading_or_its_file() {
        assert_eq!(entry_of("a.md", "---\ntitle: One\n---\n# Two").title, "One");
        assert_eq!(entry_of("a.md", "\n<!-- x -->\n# Two #\ntext").title, "Two");
        assert_eq!(entry_of("guide/first-steps.md", "text\n# Two").title, "first steps");
        assert_eq!(entry_of("guide/README.md", "").title, "guide");
    }

    fn tags(text: &str) -> Vec<String> {
        entry_of("a.md", text).tags.into_iter().map(|tag| tag.name).collect()
    }

    #[test]
    fn tags_are_taken_as_a_list_or_with_commas() {
        assert_eq!(tags("---\ntags: a, b\n---\n"), ["a", "b"]);
        assert_eq!(tags("---\ntags: [a, b]\n---\n"), ["a", "b"]);
        assert!(entry_of("a.md", "---\ndraft: true\n---\n").is_draft);
    }

    #[test]
    fn a_jekyll_post_has_its_date_and_address_from_its_file() {
        let entry =
            entry_of("_posts/2024-01-31-hello-world.md", "---\ncategories: [News]\n---\ntext");
        assert_eq!(
            (entry.title.as_str(), entry.slug.as_deref()),
            ("hello world", Some("hello-world"))
        );
        assert_eq!(entry.published_ms, date::parse("2024-01-31"));
        assert_eq!(entry.aliases, ["/news/2024/01/31/hello-world.html"]);
        assert!(entry.may_rename && !entry.is_draft);
        assert!(entry_of("_drafts/idea.md", "text").is_draft);
        let moved = entry_of("_posts/2024-01-31-a.md", "---\npermalink: /a/\n---\n");
        assert_eq!(moved.aliases, ["/a/"]);
    }

    #[test]
    fn a_hugo_page_has_the_address_of_its_place() {
        let entry = entry_of("site/content/blog/trip/index.md", "{\"title\": \"Trip\"}\ntext");
        assert_eq!((entry.title.as_str(), entry.slug.as_deref()), ("Trip", Some("trip")));
        assert_eq!(entry.aliases, ["/blog/trip/"]);
        assert_eq!(entry.body, "text");
        let entry = entry_of("content/about.md", "+++\naliases = [\"/old/\"]\n+++\n");
        assert_eq!(entry.aliases, ["/old/", "/about/"]);
        assert_eq!(entry.slug.as_deref(), Some("about"));
        assert_eq!(entry_of("discontent/about.md", "").slug, None);
    }
}
