//! Points in time as RFC 3339 text. No clock here, and no time zones but offsets.

use std::fmt;

/// Unix milliseconds, shown as `2025-01-31T12:00:00.123Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Moment(pub i64);

const DAY_MS: i64 = 86_400_000;
/// Years 0000 to 9999: beyond them RFC 3339 has no text.
const RANGE_MS: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

impl Moment {
    pub fn of(unix_ms: u64) -> Self {
        Self(i64::try_from(unix_ms).unwrap_or(i64::MAX))
    }

    /// Reads RFC 3339 with any offset; a date alone is its first instant in UTC.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let number = |range: std::ops::Range<usize>| digits(bytes.get(range)?);
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let is_date = bytes[4] == b'-' && bytes[7] == b'-';
        if !is_date || !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
            return None;
        }
        let start = days_before(year, month, day) * DAY_MS;
        let Some(rest) = bytes.get(10..).filter(|rest| !rest.is_empty()) else {
            return Some(Self(start));
        };
        let moment = start + time_of_day_ms(rest)?;
        RANGE_MS.contains(&moment).then_some(Self(moment))
    }
}

fn digits(bytes: &[u8]) -> Option<i64> {
    let add =
        |sum: i64, byte: &u8| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0'));
    bytes.iter().try_fold(0, add)
}

/// `T12:00:00.5+02:00` as milliseconds from the day's start in UTC.
fn time_of_day_ms(text: &[u8]) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| digits(text.get(range)?);
    let (hour, minute, second) = (number(1..3)?, number(4..6)?, number(7..9)?);
    let is_time = matches!(text[0], b'T' | b't' | b' ') && text[3] == b':' && text[6] == b':';
    if !is_time || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, zone) = match text.get(9) {
        Some(b'.') => {
            let len = text[10..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            if len == 0 {
                return None;
            }
            let mut padded = [b'0'; 3];
            let used = len.min(3);
            padded[..used].copy_from_slice(&text[10..10 + used]);
            (digits(&padded)?, &text[10 + len..])
        }
        _ => (0, &text[9..]),
    };
    let local = ((hour * 60 + minute) * 60 + second.min(59)) * 1000 + fraction;
    Some(local - offset_ms(zone)?)
}

fn offset_ms(zone: &[u8]) -> Option<i64> {
    match zone {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
            let ms = (hours * 60 + minutes) * 60_000;
            (hours < 24 && minutes < 60).then_some(if *sign == b'-' { -ms } else { ms })
        }
        _ => None,
    }
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.clamp(*RANGE_MS.start(), *RANGE_MS.end());
        let (year, month, day) = date_of(ms.div_euclid(DAY_MS));
        let rest = ms.rem_euclid(DAY_MS);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        put(&mut text[0..4], year);
        put(&mut text[5..7], month);
        put(&mut text[8..10], day);
        put(&mut text[11..13], rest / 3_600_000);
        put(&mut text[14..16], rest / 60_000 % 60);
        put(&mut text[17..19], rest / 1000 % 60);
        put(&mut text[20..23], rest % 1000);
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl Moment {
    /// As HTTP and mail write it: `Fri, 31 Jan 2025 12:00:00 GMT`.
    pub fn http_date(self) -> String {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let ms = self.0.clamp(*RANGE_MS.start(), *RANGE_MS.end());
        let days = ms.div_euclid(DAY_MS);
        let (year, month, day) = date_of(days);
        let rest = ms.rem_euclid(DAY_MS) / 1000;
        let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
        let weekday = DAYS[days.rem_euclid(7) as usize % 7];
        let month = MONTHS[(month - 1).rem_euclid(12) as usize % 12];
        format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
    }
}

fn put(place: &mut [u8], mut number: i64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

impl serde::Serialize for Moment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_reads_back_what_it_shows() {
        for ms in
            [0, 951_782_400_000, 1_738_324_800_123, -1, 253_402_300_799_999, -62_167_219_200_000]
        {
            assert_eq!(Moment::parse(&Moment(ms).to_string()), Some(Moment(ms)), "{}", Moment(ms));
        }
        assert_eq!(Moment(1_738_324_800_123).to_string(), "2025-01-31T12:00:00.123Z");
    }

    #[test]
    fn a_moment_is_written_as_http_wants_it() {
        assert_eq!(Moment(1_738_324_800_123).http_date(), "Fri, 31 Jan 2025 12:00:00 GMT");
        assert_eq!(Moment(0).http_date(), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(Moment(-1).http_date(), "Wed, 31 Dec 1969 23:59:59 GMT");
    }

    #[test]
    fn offsets_fractions_and_dates_are_read() {
        let noon = Some(Moment(1_738_324_800_000));
        assert_eq!(Moment::parse("2025-01-31T14:00:00+02:00"), noon);
        assert_eq!(Moment::parse("2025-01-31 07:00:00.000999999-05:00"), noon);
        assert_eq!(Moment::parse("2025-01-31"), Some(Moment(1_738_281_600_000)));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let wrong = [
            "",
            "2025",
            "2025-13-01",
            "2025-02-29",
            "2025-01-31T",
            "2025-01-31T25:00:00Z",
            "2025-01-31T12:00:00",
            "2025-01-31T12:00:00.Z",
            "2025-01-31T12:00:00+2:00",
            "2025-01-31T12:00:00Zé",
            "éééééééééé",
        ];
        for text in wrong {
            assert_eq!(Moment::parse(text), None, "{text}");
        }
    }
}
