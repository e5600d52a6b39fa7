/*
 * What vioapic_check() implies pin by pin (the third condition of check_pin) and Eva does not see by itself, because it
 * looks at the paths through 48 pins together. Nothing is assumed that check() does not say.
 */
static bool assumption(void)
{
    for (unsigned pin = 0; pin < VIOAPIC_MAX_PINS; pin++) {
        if (state.hold_shift[pin] > VIOAPIC_HOLD_DOUBLINGS)
            return false;
    }
    return true;
}
