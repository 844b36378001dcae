# Hart 0 prints a line at every tick, with the number of the tick, and ends the machine after so many as it is told.

        .include "guest.inc"

        control 3, 0, 0, 1000000, 0, 0, 0, 0
        begin
        li      t0, 2
        sd      t0, STATE(s11)
        bnez    s0, rest
        li      t0, 0x80
        csrw    mie, t0
        la      a0, hello
        jal     ra, print

sleep:  wfi
        ld      t0, 0(s10)
        ld      t1, 0(s9)
        bltu    t1, t0, sleep
        check_time
        ld      t1, 0(s10)
        add     t1, t1, s8
        bgeu    t1, t0, 1f
        mv      t1, t0
1:      sd      t1, 0(s10)
        ld      s4, TICKS(s11)
        addi    s4, s4, 1
        sd      s4, TICKS(s11)
        la      a0, tick
        jal     ra, print
        li      s5, 1000000000          # digits from the left, without leading zeros
        li      s6, 0
        li      s7, 10
2:      divu    a1, s4, s5
        remu    a1, a1, s7
        or      s6, s6, a1
        li      t0, 1
        beq     s5, t0, 3f
        beqz    s6, 4f
3:      addi    a1, a1, '0'
        jal     t2, put
4:      divu    s5, s5, s7
        bnez    s5, 2b
        li      a1, '\n'
        jal     t2, put
        sd      s4, COUNTER(s11)
        ld      t0, P_LIMIT(s1)
        bne     s4, t0, sleep
        la      a2, tohost
        li      t0, 1                   # end with status 0
        sd      t0, 0(a2)
rest:   wfi
        j       rest

# Prints the text at a0, which ends with a zero.
print:  lbu     a1, 0(a0)
        beqz    a1, 1f
        jal     t2, put
        addi    a0, a0, 1
        j       print
1:      ret

# Prints the byte a1. Returns to t2.
put:    la      a2, tohost
        li      t0, 0x0101000000000000
        or      t0, t0, a1
        sd      t0, 0(a2)
1:      ld      t0, 0(a2)
        bnez    t0, 1b
        jr      t2
        failure

hello:  .string "vmstate guest\n"
tick:   .string "tick "
