/*
 * The clocks of a domain. One crystal of 157500000/11 Hz feeds the chipset: the HPET counts it, the PIT a twelfth, the
 * PM timer a quarter, so the three stay phase-locked like on a board; the RTC's 32,768 Hz is an exact ratio of it.
 */
#ifndef METRONOME_CLOCK_H
#define METRONOME_CLOCK_H

/* Master clock: MASTER_HZ_NUM / MASTER_HZ_DEN = 14,318,181.81... Hz. */
#define MASTER_HZ_NUM 157500000u
#define MASTER_HZ_DEN 11u

#define MASTER_PER_PIT_TICK 12u
#define MASTER_PER_PM_TICK 4u

/* RTC ticks of 1/32768 s = master ticks * RTC_PER_MASTER_NUM / RTC_PER_MASTER_DEN, exactly. */
#define RTC_PER_MASTER_NUM 11264u
#define RTC_PER_MASTER_DEN 4921875u

#endif
