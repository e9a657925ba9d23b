from ntkdecay import power_counting
from surface import Call, call


@call("power_counting.Correlation")
def correlation(other=False):
    del other
    return Call(power_counting.Correlation, {"tensors": ("ab", "a", "b")})
