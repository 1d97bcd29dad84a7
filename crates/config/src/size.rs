//! Sizes as people write them: `512K`, `300M`, `1G`, `2T`, in powers of 1024.

/// Reads a number with its unit.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let (number, shift) = [("K", 10), ("M", 20), ("G", 30), ("T", 40)]
        .iter()
        .find_map(|(unit, shift)| text.strip_suffix(unit).map(|number| (number, *shift)))?;
    let number: u64 = crate::value::whole(number)?;
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units() {
        for (text, bytes) in
            [("0K", 0), ("512K", 524_288), ("300M", 314_572_800), ("1G", 1 << 30), ("2T", 1 << 41)]
        {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_all_else() {
        for text in ["", "K", "1", "1k", "1KB", "1KiB", "1.5G", "-1G", "1 G", "01G", "18446744073709551615K"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
