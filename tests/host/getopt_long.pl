# Getopt::Long as xen-tools calls it: the specs as arguments, a line in JSON a question, one an answer.
use strict;
use warnings;
use Getopt::Long;
use JSON::PP;

my %value_of;
my @specs = @ARGV;
my %got;
foreach my $spec (@specs) {
    my ($name) = $spec =~ /^([\w-]+)/;
    my $repeats = $spec =~ /\@\z/;
    $value_of{$spec} = sub {
        my ( undef, $value ) = @_;
        $got{$name} = $repeats && defined $got{$name} ? "$got{$name},$value" : "$value";
    };
}
my $json = JSON::PP->new->canonical;
$| = 1;
while ( my $line = <STDIN> ) {
    %got   = ();
    @ARGV  = @{ $json->decode($line) };
    my $warned = '';
    local $SIG{__WARN__} = sub { $warned .= $_[0] };
    my $ok = GetOptions(%value_of);
    print $json->encode(
        { ok => $ok ? 1 : 0, got => {%got}, words => [@ARGV], warned => $warned } ), "\n";
}
