//! What a Markdown file says of a post: by its front matter, and by where it lies. Knows the layouts of Jekyll
//! (`_posts/2024-01-31-name.md`, `_drafts`) and Hugo (`content/`, page bundles), and which address each gave a post.

use super::super::post::{CANONICAL_URL, COVER, EXCERPT, FEATURED, FORMAT, TITLE};
use super::super::slug::slug_of;
use super::date;
use super::entry::{Entry, Item, Place, fitting, hash_of, is_address};
use super::front_matter::{self, FrontMatter};
use crate::identity::author::Author;
use atoll_storage::tx::Changes;
use std::collections::BTreeSet;
use std::path::Path;

/// Markdown, or HTML with front matter, which both may have among their pages.
pub(super) fn is_page(path: &Path) -> bool {
    let endings = ["md", "markdown", "mkd", "html", "htm"];
    path.extension().is_some_and(|ext| endings.iter().any(|known| ext.eq_ignore_ascii_case(known)))
}

fn is_html(origin: &str) -> bool {
    let ending = origin.rsplit('.').next().unwrap_or_default();
    ending.eq_ignore_ascii_case("html") || ending.eq_ignore_ascii_case("htm")
}

/// `source`: what the report calls it. `origin`: its path within the folder or archive.
pub(super) fn item_of(source: &str, origin: &str, text: &str) -> Item {
    if is_html(origin) && front_matter::split(text).0.is_empty() {
        return Item::skipped(source, "is HTML without front matter: a layout, and no page");
    }
    let mut entry = entry_of(origin, text);
    source.clone_into(&mut entry.source);
    Item::Post(Box::new(entry))
}

/// `origin`: its path within the folder or archive.
fn entry_of(origin: &str, text: &str) -> Entry {
    let (head, body) = front_matter::split(text);
    let lies = Lies::of(origin);
    let title = head
        .text(&["title"])
        .or_else(|| heading(body))
        .map_or_else(|| name_of(origin, lies.name), str::to_owned);
    let mut categories = several(&head, &lies, &["category"], &["categories"]);
    let (base, aliases) = addresses(&head, &lies, &categories);
    let category = if categories.is_empty() { None } else { Some(categories.remove(0)) };
    // A post has one category: what else it lay under, it carries as tags.
    let tags = several(&head, &lies, &["tag"], &["tags", "keywords"]).into_iter().chain(categories);
    let slug = head.text(&["slug"]).or(lies.slug());
    let mut notes: Vec<String> = shortcodes(&lies, body).into_iter().collect();
    let mut time = |keys: &[&str]| date_of(&head, keys, &mut notes);
    let published_ms =
        time(&["date", "published_at", "pubdate"]).or_else(|| lies.date.and_then(date::parse));
    let changed_ms = time(&["lastmod", "last_modified_at", "updated"]);
    let mut authors = authors_of(&head).into_iter();
    Entry {
        origin: origin.to_owned(),
        hash: hash_of(&[text.as_bytes()]),
        title: fitting(&TITLE, &title),
        body: body.to_owned(),
        changes: changes_of(&head, is_html(origin)),
        slug: slug.map(str::to_owned),
        may_rename: head.text(&["slug"]).is_none(),
        category: category.map(Place::named),
        tags: tags.map(Place::named).collect(),
        author: authors.next(),
        others: authors.collect(),
        is_draft: head.flag("draft") || head.text(&["published"]) == Some("false") || lies.is_draft,
        published_ms,
        made_ms: published_ms,
        changed_ms,
        base,
        aliases,
        notes,
        ..Entry::default()
    }
}

/// A text holds several by commas; in Jekyll, under the names that say several, by blanks if it has no commas.
fn several(head: &FrontMatter, lies: &Lies<'_>, one: &[&str], many: &[&str]) -> Vec<String> {
    let owned = |parts: Vec<&str>| parts.into_iter().map(|part| part.trim().to_owned()).collect();
    let (keys, is_plural) = if head.list(one).is_empty() { (many, true) } else { (one, false) };
    match head.list(keys) {
        [text] if text.contains(',') => owned(text.split(',').collect()),
        [text] if is_plural && lies.is_jekyll && !head.is_list(keys) => {
            owned(text.split_whitespace().collect())
        }
        values => values.to_vec(),
    }
}

fn changes_of(head: &FrontMatter, is_html: bool) -> Changes {
    let mut changes = Changes::new();
    if let Some(excerpt) = head.text(&["excerpt", "summary", "description"]) {
        changes.put(&EXCERPT, fitting(&EXCERPT, excerpt));
    }
    let cover =
        head.text(&["cover", "cover.image", "image", "featured_image", "images", "thumbnail"]);
    if let Some(cover) = cover.filter(|address| is_address(address)) {
        changes.put(&COVER, fitting(&COVER, cover));
    }
    let canonical = head.text(&["canonical_url", "canonicalurl", "canonical"]);
    if let Some(address) =
        canonical.filter(|address| is_address(address) && !address.starts_with('/'))
    {
        changes.put(&CANONICAL_URL, fitting(&CANONICAL_URL, address));
    }
    if head.flag("featured") {
        changes.put(&FEATURED, true);
    }
    if is_html {
        changes.put(&FORMAT, "html");
    }
    changes
}

fn date_of(head: &FrontMatter, keys: &[&str], notes: &mut Vec<String>) -> Option<i64> {
    let text = head.text(keys)?;
    let read = date::parse(text);
    if read.is_none() {
        notes.push(format!("{text:?} is no date that can be read"));
    }
    read
}

/// What its generator would have put something in the place of.
fn shortcodes(lies: &Lies<'_>, body: &str) -> Option<String> {
    let mut names = BTreeSet::new();
    for opening in ["{{<", "{{%", "{%", "{{"] {
        if opening.starts_with("{%") && !lies.is_jekyll {
            continue;
        }
        for (at, _) in body.match_indices(opening) {
            let rest = body[at + opening.len()..].trim_start_matches(['-', '/', ' ', '<', '%']);
            let name: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
                .take(40)
                .collect();
            if !name.is_empty() && names.len() < 10 {
                names.insert(name);
            }
        }
    }
    let is_generated = lies.is_jekyll || lies.hugo.is_some();
    let names: Vec<String> = names.into_iter().collect();
    (is_generated && !names.is_empty()).then(|| {
        format!("holds marks of its generator, which stay as they are: {}", names.join(", "))
    })
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

/// The address that its place gave it or that it says is its own, and all addresses that it had.
fn addresses(head: &FrontMatter, lies: &Lies<'_>, categories: &[String]) -> (String, Vec<String>) {
    let written = ["aliases", "alias", "redirect_from", "permalink", "url"];
    let mut all: Vec<String> = written.iter().flat_map(|key| head.list(&[*key]).to_vec()).collect();
    // A pattern is no address.
    all.retain(|address| !address.contains(':') || address.contains("://"));
    let own = head.text(&["permalink", "url"]).filter(|own| all.iter().any(|known| known == own));
    let has_own = !head.list(&["permalink", "url"]).is_empty();
    let placed = match (lies.hugo, lies.date) {
        (Some(path), _) => format!("/{path}/"),
        (None, Some(date)) if lies.is_jekyll => {
            let folders: String =
                categories.iter().map(|name| format!("/{}", slug_of(name))).collect();
            format!("{folders}/{}/{}.html", date.replace('-', "/"), lies.name)
        }
        _ => String::new(),
    };
    let base = own.filter(|own| own.starts_with('/')).map_or_else(|| placed.clone(), str::to_owned);
    if !has_own && !placed.is_empty() {
        all.push(placed);
    }
    (base, all)
}

/// By their usernames, or their e-mail addresses if those stand there; nobody gets an account by a name.
fn authors_of(head: &FrontMatter) -> Vec<Author> {
    let author = |name: &String| {
        let (email, username) =
            if name.contains('@') { (name.as_str(), "") } else { ("", name.as_str()) };
        Author { email: email.to_owned(), username: username.to_owned(), name: String::new() }
    };
    let keys = ["author", "authors", "author.email", "author.username", "author.name"];
    head.list(&keys).iter().map(author).collect()
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
        let spaced = "---\ncategories: one two\ntags: [x y, z]\ncategory: \n---\n{% include a.html %} {{ site.url }}";
        let entry = entry_of("_posts/2024-01-31-a.md", spaced);
        let tags: Vec<&str> = entry.tags.iter().map(|tag| tag.name.as_str()).collect();
        assert_eq!(entry.category, Some(Place::named("one")));
        assert_eq!(tags, ["x y", "z", "two"]);
        assert!(entry.notes[0].ends_with(": include, site.url"), "{:?}", entry.notes);
    }

    #[test]
    fn html_with_front_matter_is_a_page_and_without_it_none() {
        let page =
            item_of("a", "_posts/2024-01-31-a.html", "---\ntitle: A\ndate: soon\n---\n<p>a</p>");
        let Item::Post(entry) = page else { panic!("no page") };
        assert_eq!(entry.changes.get(&FORMAT).and_then(|format| format.as_text()), Some("html"));
        assert!(entry.notes[0].contains("soon"));
        assert!(matches!(item_of("a", "_layouts/a.html", "<p>"), Item::Skipped { .. }));
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
